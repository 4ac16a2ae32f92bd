"""The use cases: resolve a batch, read a profile.

Why resolving is right with any number of replicas (docs/adr/0005-identity-concurrency.md):

- Whoever changes the graph of a workspace holds that workspace's lock from before its first read until after its commit. So all
  changes of a workspace happen one after the other, each decided on what the one before left.
- An event whose identifiers are all known and belong to one profile changes nothing whatever else happens, because identifiers
  never leave their person. It is answered from one snapshot, without a lock. Its traits are the exception: they are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from cdi.error.v1 import error_pb2
from cdi_identity.domain.graph import Graph
from cdi_identity.domain.identifiers import DEFAULT_RULES, Identifier, Named, Rules, usable
from cdi_identity.domain.resolution import Observation, Resolution, resolve
from cdi_identity.ports import GraphStore, StoredProfile
from cdi_kernel.faults import NotFound
from cdi_kernel.ids import fallback_profile_id, uuid7


class Identities:
    """The use cases of the identity graph.

    Args:
        store: the graph.
        now_us: the clock, microseconds since 1970: the time of changes.
        merged: called after a commit that put merges into the outbox.
        rules: the identity rules of all workspaces.
    """

    def __init__(self, store: GraphStore, now_us: Callable[[], int], merged: Callable[[], None], rules: Rules = DEFAULT_RULES) -> None:
        self._store = store
        self._now_us = now_us
        self._merged = merged
        self._rules = rules
        # Batches of this replica wait for each other here, not inside Postgres, where each would hold a connection of the pool.
        self._turn = asyncio.Lock()

    async def resolve(self, observations: Sequence[Observation]) -> list[Resolution]:
        """The profile of each event, as if the events had come one by one in this order. Redone, it answers the same.

        Raises:
            Transient: the store does not answer; nothing of the batch is promised.
        """
        # What brings traits is written in any case, so its identifiers are read only once, under the lock.
        identifiers = list(
            {identifier: None for observation in observations if not observation.traits for identifier in observation.identifiers}
        )
        owners = dict(zip(identifiers, await self._store.owners(identifiers), strict=True)) if identifiers else {}
        resolutions: list[Resolution | None] = [_unchanged(observation, owners) for observation in observations]
        open_ones = [index for index, resolution in enumerate(resolutions) if resolution is None]
        if open_ones:
            changed, successors = await self._change([observations[index] for index in open_ones])
            if successors:
                resolutions = [resolution and _followed(resolution, successors) for resolution in resolutions]
            for index, resolution in zip(open_ones, changed, strict=True):
                resolutions[index] = resolution
        return [resolution for resolution in resolutions if resolution is not None]

    async def profile_by_id(self, workspace_id: str, profile_id: str) -> StoredProfile:
        """The profile of an id, also of a merged one.

        Raises:
            NotFound: there is none.
        """
        return _found(await self._store.profile_by_id(workspace_id, profile_id), "profile_id")

    async def profile_by_identifier(self, workspace_id: str, identifier: Named) -> StoredProfile:
        """The profile that has an identifier.

        Raises:
            NotFound: nobody has it, or it is one that never links.
        """
        identifiers = usable(workspace_id, [identifier], self._rules)
        return _found(await self._store.profile_by_identifier(identifiers[0]) if identifiers else None, "identifier")

    async def _change(self, observations: Sequence[Observation]) -> tuple[list[Resolution], dict[str, str]]:
        """Resolves the events that may change the graph. Returns also the canonical id of every profile that was merged."""
        identifiers = list({identifier: None for observation in observations for identifier in observation.identifiers})
        workspaces = {observation.workspace_id for observation in observations}
        async with self._turn, self._store.changing(workspaces) as writer:
            graph = Graph(await writer.load(identifiers), _fresh_ids())
            resolutions = resolve(graph, observations, self._rules)
            changes = graph.changes()
            if changes:
                await writer.save(changes, self._now_us())
        if changes.merges:
            self._merged()
        return resolutions, {profile.profile_id: profile.canonical.profile_id for profile in changes.moved}


def _unchanged(observation: Observation, owners: dict[Identifier, str | None]) -> Resolution | None:
    """The answer to an event that changes nothing; ``None`` if it may change something."""
    identifiers = observation.identifiers
    if not identifiers:
        return Resolution(fallback_profile_id(observation.workspace_id, "", "", observation.message_id))
    if observation.traits or (owner := owners[identifiers[0]]) is None:
        return None
    for identifier in identifiers:
        if owners[identifier] != owner:
            return None
    return Resolution(owner)


def _followed(resolution: Resolution, successors: dict[str, str]) -> Resolution:
    successor = successors.get(resolution.profile_id)
    return resolution if successor is None else Resolution(successor)


def _fresh_ids() -> Iterator[str]:
    while True:
        yield str(uuid7())


def _found(profile: StoredProfile | None, name: str) -> StoredProfile:
    if profile is None:
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": name})
    return profile
