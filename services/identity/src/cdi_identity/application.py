"""The use case of the data path: resolve a batch.

Why resolving is right with any number of replicas (docs/adr/0005-identity-concurrency.md):

- Whoever changes the graph of a workspace holds that workspace's lock from before its first read until after its commit. So all
  changes of a workspace happen one after the other, each decided on what the one before left.
- An event whose identifiers are all known and belong to one profile changes nothing. It is answered from one snapshot, without a lock:
  it comes before every change that the snapshot does not see. Its traits are the exception: they are written.
- An event whose identifiers are remembered is answered as of the same snapshot (``remembering``).
- If a profile was split, or the rules changed, between that snapshot and the lock, all of the batch is decided under the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Protocol

from cdi_identity.domain import traits
from cdi_identity.domain.changes import Changes
from cdi_identity.domain.graph import Graph
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.resolution import Observation, Resolution, resolve
from cdi_identity.domain.rules import Rules
from cdi_identity.ports import GraphStore, GraphWriter, Lookup
from cdi_identity.remembering import KnownPeople
from cdi_identity.ruling import RuleBook
from cdi_kernel.faults import Unavailable
from cdi_kernel.ids import fallback_profile_id, uuid7_texts

Answers = dict[int, Resolution]
"""Resolutions by the place of their event in the batch."""


class Batch(Protocol):
    """Events whose profile is asked for."""

    @property
    def workspace_ids(self) -> Sequence[str]:
        """The distinct workspaces of the events."""
        ...

    @property
    def tombstones(self) -> int | None:
        """Generation of consent's tombstones by which the events were judged; ``None``: they need no judgement."""
        ...

    def observations(self, rules: Mapping[str, Rules]) -> list[Observation]:
        """What the events say, in order, by the rules of their workspaces."""
        ...


class Identities:
    """The use case.

    Args:
        store: the graph.
        book: the rules of the workspaces.
        now_us: the clock, microseconds since 1970: the time of changes.
        changed: called after a commit that put something into the outbox.
    """

    def __init__(self, store: GraphStore, book: RuleBook, now_us: Callable[[], int], changed: Callable[[], None]) -> None:
        self._store = store
        self._book = book
        self._now_us = now_us
        self._changed = changed
        self._people = KnownPeople()
        # Batches of this replica wait for each other here, not inside Postgres, where each would hold a connection of the pool.
        self._turn = asyncio.Lock()

    async def resolve(self, batch: Batch) -> list[Resolution]:
        """The profile of each event, as if the events had come one by one in this order. Redone, it answers the same.

        Raises:
            Transient: the store does not answer, or somebody was erased after consent had judged the batch; nothing of it is promised.
        """
        rules, observations, lookup, answers = await self._look(batch)
        if len(answers) < len(observations):
            changed, rules = await self._change(batch, observations, rules, lookup, answers)
            answers |= changed
        resolutions = [answers[index] for index in range(len(observations))]
        if any(rules[workspace_id].event_traits for workspace_id in batch.workspace_ids):
            await self._choose_traits(observations, resolutions, rules)
        return resolutions

    async def _look(self, batch: Batch) -> tuple[Mapping[str, Rules], list[Observation], Lookup, Answers]:
        """The events by the newest rules, a snapshot, and the answers to those that change nothing as of it."""
        rules, trusting = self._book.known(batch.workspace_ids), True
        while True:
            observations = batch.observations(rules)
            # What brings traits is written in any case, so its identifiers are read only once, under the lock.
            events = {index: one.identifiers for index, one in enumerate(observations) if one.identifiers and not one.traits}
            if not events and all(one.identifiers for one in observations):
                return rules, observations, Lookup({}, {}, {}), {}
            recalled = self._people.recall(batch.workspace_ids, events if trusting else {})
            strangers = {index: identifiers for index, identifiers in events.items() if index not in recalled.owners}
            lookup = await self._store.look_up(_distinct(strangers.values()), batch.workspace_ids, recalled.since)
            self._people.hear(recalled, lookup)
            outdated = _outdated(rules, lookup)
            rules = {**rules, **await self._book.read(outdated, self._store)} if outdated else rules
            remembered = recalled.confirmed(lookup)
            if outdated or remembered is None:
                trusting = remembered is not None
                continue
            owned = _owned(strangers, lookup.owners)
            self._people.learn(recalled, owned, lookup)
            answers = {index: Resolution(owner) for index, owner in (*remembered.items(), *owned)}
            return rules, observations, lookup, answers | _alone(observations)

    async def _change(
        self, batch: Batch, observations: Sequence[Observation], rules: Mapping[str, Rules], seen: Lookup, answered: Answers
    ) -> tuple[Answers, Mapping[str, Rules]]:
        """Resolves the events that may change the graph. Returns also the rules, and new answers to others where theirs are out of date."""
        indexes = [index for index in range(len(observations)) if index not in answered]
        workspaces = list({observations[index].workspace_id: None for index in indexes})
        async with self._turn, self._store.changing(workspaces) as writer:
            lookup = await writer.look_up(_distinct(observations[index].identifiers for index in indexes), workspaces)
            _check_judgement(batch, lookup)
            outdated = _outdated(rules, lookup)
            if outdated or _split_since(seen, lookup):
                rules = {**rules, **await self._book.read(outdated, writer)}
                observations = batch.observations(rules)
                indexes = [index for index, observation in enumerate(observations) if observation.workspace_id in lookup.standings]
                lookup = await writer.look_up(_distinct(observations[index].identifiers for index in indexes), workspaces)
            answers, changes = await self._decide(writer, [(index, observations[index]) for index in indexes], rules, lookup)
        if changes:
            self._changed()
        successors = {profile.profile_id: profile.canonical.profile_id for profile in changes.moved}
        for index, resolution in answered.items():
            successor = successors.get(resolution.profile_id)
            if successor is not None and index not in answers:
                answers[index] = Resolution(successor)
        return answers, rules

    async def _decide(
        self, writer: GraphWriter, events: Sequence[tuple[int, Observation]], rules: Mapping[str, Rules], lookup: Lookup
    ) -> tuple[Answers, Changes]:
        """Decides events under the lock and saves what they change."""
        now_us = self._now_us()
        answers = {index: _unlinked(observation) for index, observation in events if not observation.identifiers}
        linked = [(index, observation) for index, observation in events if observation.identifiers]
        graph = await loaded(writer, lookup, rules, now_us)
        for (index, _), resolution in zip(linked, resolve(graph, [observation for _, observation in linked], rules), strict=True):
            answers[index] = resolution
        changes = graph.changes()
        if changes:
            await writer.save(changes, now_us)
        return answers, changes

    async def _choose_traits(
        self, observations: Sequence[Observation], resolutions: Sequence[Resolution], rules: Mapping[str, Rules]
    ) -> None:
        """Adds the traits that the rules choose for events: one read for the profiles of these workspaces."""
        names = {workspace_id: given.event_traits for workspace_id, given in rules.items() if given.event_traits}
        wanted = [
            (resolution, names[observation.workspace_id])
            for observation, resolution in zip(observations, resolutions, strict=True)
            if observation.workspace_id in names
        ]
        documents = await self._store.documents(list({resolution.profile_id: None for resolution, _ in wanted}))
        chosen: dict[tuple[str, Sequence[str]], bytes] = {}
        for resolution, wanted_names in wanted:
            key = (resolution.profile_id, wanted_names)
            if key not in chosen:
                chosen[key] = traits.to_object(traits.combined(documents.get(resolution.profile_id, ())), wanted_names)
            resolution.chosen_traits = chosen[key]


async def loaded(writer: GraphWriter, lookup: Lookup, rules: Mapping[str, Rules], now_us: int) -> Graph:
    """The working copy of the profiles that have one of the identifiers."""
    windows = {workspace_id: rules[workspace_id].windows(now_us) for workspace_id in lookup.standings}
    profiles = await writer.load(lookup.owners.values(), {workspace_id: since for workspace_id, since in windows.items() if since})
    return Graph({identifier: profiles[owner] for identifier, owner in lookup.owners.items()}, uuid7_texts())


def _distinct(brought: Iterable[tuple[Identifier, ...]]) -> list[Identifier]:
    """The identifiers of events, each once."""
    return list(dict.fromkeys(chain.from_iterable(brought)))


def _outdated(rules: Mapping[str, Rules], lookup: Lookup) -> list[str]:
    return [workspace_id for workspace_id, standing in lookup.standings.items() if rules[workspace_id].version != standing.rules_version]


def _check_judgement(batch: Batch, lookup: Lookup) -> None:
    """Under the lock: what consent judged without the tombstones of somebody who is erased already could bring that person back."""
    judged = batch.tombstones
    if judged is not None and any(standing.tombstones > judged for standing in lookup.standings.values()):
        raise Unavailable("consent", "somebody was erased since consent judged the batch")


def _split_since(seen: Lookup, lookup: Lookup) -> bool:
    """Whether a profile was separated between two reads. What was not read the first time has no answer to go out of date."""
    return any(seen.standings.get(workspace_id, standing) != standing for workspace_id, standing in lookup.standings.items())


def _unlinked(observation: Observation) -> Resolution:
    return Resolution(fallback_profile_id(observation.workspace_id, "", "", observation.message_id))


def _alone(observations: Sequence[Observation]) -> Answers:
    """The answers to the events without identifiers."""
    return {index: _unlinked(observation) for index, observation in enumerate(observations) if not observation.identifiers}


def _owned(events: Mapping[int, tuple[Identifier, ...]], owners: Mapping[Identifier, str]) -> list[tuple[int, str]]:
    """The events whose identifiers all belong to one profile, with that profile: they change nothing."""
    owned = []
    for index, identifiers in events.items():
        found = list(map(owners.get, identifiers))
        owner = found[0]
        if owner is not None and found.count(owner) == len(found):
            owned.append((index, owner))
    return owned
