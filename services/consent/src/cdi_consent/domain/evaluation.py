"""Evaluation: a batch of events in order, the decisions that they carry, and what each may be used for.

Deliberately absent: the event's other content, suppressions, and any store; what is in force is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import msgspec

from cdi_consent.domain.decisions import (
    MAX_SIGNAL,
    UNDECIDED,
    Decided,
    Decision,
    Source,
    Standing,
    Standings,
    Subject,
    decision_id,
    is_news,
)
from cdi_consent.domain.policy import DefaultPolicy
from cdi_consent.domain.purposes import WITHOUT_PURPOSES, Defaults, Outcome, Purposes, WorkspacePurposes
from cdi_consent.domain.signals.registry import combine, read
from cdi_consent.domain.signals.signal import Reading, SignalKind

Preferences: TypeAlias = tuple[tuple[str, bool], ...]
"""The answers that an event carries, as (category, granted)."""

Signals: TypeAlias = tuple[tuple[str, bytes], ...]
"""The answers that it carries in other forms, as (kind, as it was sent)."""

_KINDS: Final = frozenset(SignalKind)
_NOT_READ: Final = Reading(SignalKind.SEGMENT)


class Item(msgspec.Struct, frozen=True, gc=False):
    """What consent needs to know of one event.

    Attributes:
        workspace_id: the workspace.
        subjects: whose event it is; empty when it has no id that can be a subject's.
        preferences: the answers that it carries.
        event_us: when it happened; means nothing without answers, as does the proof.
        proof: its message id as the proof of these answers, see ``proof_of``.
        answered: it carries an object of answers, be it an empty one, or signals.
        region: where the person is; empty if unknown.
        signals: the answers that it carries in other forms, as (kind, as it was sent).
    """

    workspace_id: str
    subjects: tuple[Subject, ...]
    preferences: Preferences = ()
    event_us: int = 0
    proof: str = ""
    answered: bool = False
    region: str = ""
    signals: Signals = ()


Confirmations: TypeAlias = dict[tuple[Subject, str], Standing]


class Evaluation(NamedTuple):
    """The result of a batch.

    Attributes:
        outcomes: one per item, in order.
        decisions: new lines of the ledger, in the order in which they were met.
        confirmations: standings whose time moves, by subject and purpose.
    """

    outcomes: list[Outcome]
    decisions: list[Decision]
    confirmations: Confirmations

    @property
    def changing(self) -> set[Subject]:
        """Whose decisions change or are confirmed."""
        return {decision.subject for decision in self.decisions} | {subject for subject, _ in self.confirmations}


def evaluate(items: Iterable[Item], purposes: Purposes, standings: Standings, changing: Collection[Subject], now_us: int) -> Evaluation:
    """Judges events in order; an answer that an event carries holds for itself and for later ones.

    Args:
        items: the events.
        purposes: the snapshot.
        standings: what is in force for the subjects of the items before the first of them.
        changing: whose carried answers are taken.
        now_us: no decision was taken later than this; a client's clock that says so is wrong.
    """
    running = dict(standings)
    outcomes: list[Outcome] = []
    evaluation = Evaluation(outcomes, [], {})
    for item in items:
        workspace = purposes.get(item.workspace_id)
        if workspace is None:
            outcomes.append(WITHOUT_PURPOSES)
            continue
        defaults = workspace.in_region(item.region) if item.region else workspace.anywhere
        if item.preferences or item.signals:
            answers = answers_of(item.preferences, item.signals, workspace)
            if not item.subjects:
                outcomes.append(_without_subject(workspace, defaults, answers))
                continue
            decide_us = min(item.event_us, now_us)
            for subject in item.subjects:
                if is_news(answers, running.get(subject, UNDECIDED), decide_us) and subject in changing:
                    _take(item, subject, answers, workspace, running, now_us, evaluation)
        found = [decided for subject in item.subjects if (decided := running.get(subject)) is not None]
        if found:
            outcomes.append(_judge(workspace, defaults, found))
        else:
            outcomes.append(defaults.unanswered if item.answered else defaults.unknown)
    return evaluation


@lru_cache(maxsize=512)
def answers_of(preferences: Preferences, signals: Signals, workspace: WorkspacePurposes) -> Mapping[str, bool]:
    """The carried answers by purpose. Unknown categories say nothing; of two answers to one purpose the stricter counts."""
    answers: dict[str, bool] = {}
    readings = [read_signal(kind, raw) for kind, raw in signals]
    signalled = [(key, answer) for key in workspace.by_category if (answer := combine(readings, key)) is not None] if readings else ()
    for category, granted in (*preferences, *signalled):
        for name in workspace.by_category.get(category, ()):
            answers[name] = granted and answers.get(name, True)
    return answers


@lru_cache(maxsize=512)
def read_signal(kind: str, raw: bytes) -> Reading:
    """A signal, read. One of an unknown kind says nothing."""
    return read(SignalKind(kind), raw) if kind in _KINDS else _NOT_READ


def carried_id(item: Item, subject: Subject, purpose: str, granted: bool) -> str:
    """The id of an answer that an event carries."""
    return decision_id("event", subject, purpose, granted, item.event_us, item.proof)


def earlier_than_batch(items: Sequence[Item], purposes: Purposes, standings: Standings) -> dict[tuple[Subject, str], list[str]]:
    """Which standings were made by these very items, because the batch was evaluated before.

    To give the same answers again, evaluation must start from what was in force before the batch.

    Returns:
        (subject, purpose) → the ids of all decisions that the batch carries on it.
    """
    carrying = {item.proof: item for item in items if (item.preferences or item.signals) and item.workspace_id in purposes}
    # Nearly always none of them: one pass without a step per subject.
    if carrying.keys().isdisjoint([standing.proof for decided in standings.values() for standing in decided.values()]):
        return {}
    own = [
        (subject, purpose)
        for subject, decided in standings.items()
        for purpose, standing in decided.items()
        if (item := carrying.get(standing.proof)) is not None
        and subject in item.subjects
        and carried_id(item, subject, purpose, standing.granted) == standing.decision_id
    ]
    found: dict[tuple[Subject, str], list[str]] = {key: [] for key in own}
    for item in carrying.values() if own else ():
        for purpose, granted in answers_of(item.preferences, item.signals, purposes[item.workspace_id]).items():
            for subject in item.subjects:
                if (subject, purpose) in found:
                    found[subject, purpose].append(carried_id(item, subject, purpose, granted))
    return found


def _take(
    item: Item,
    subject: Subject,
    answers: Mapping[str, bool],
    workspace: WorkspacePurposes,
    running: dict[Subject, Decided],
    now_us: int,
    evaluation: Evaluation,
) -> None:
    """Adds the answers that are news to ``evaluation``; in ``running`` they take effect unless they come too late."""
    decide_us = min(item.event_us, now_us)
    running[subject] = own = dict(running.get(subject, UNDECIDED))
    for purpose, granted in answers.items():
        standing = own.get(purpose)
        if standing is None or standing.granted != granted:
            identity = carried_id(item, subject, purpose, granted)
            versions = workspace.by_name[purpose].version, workspace.policy.version
            decision = Decision(
                identity,
                subject,
                purpose,
                granted,
                decide_us,
                now_us,
                item.proof,
                Source.EVENT,
                *versions,
                signal_of(item.preferences, item.signals),
            )
            evaluation.decisions.append(decision)
            offered = decision.standing
            if standing is None or standing.precedence < offered.precedence:
                own[purpose] = offered
        elif standing.is_confirmed_at(decide_us):
            own[purpose] = evaluation.confirmations[subject, purpose] = msgspec.structs.replace(standing, decide_us=decide_us)


def _judge(workspace: WorkspacePurposes, defaults: Defaults, found: Iterable[Decided]) -> Outcome:
    """The outcome for subjects of whom at least one has decided something. Runs for every event."""
    granted: list[str] = []
    rests_on: list[str] = []
    linkable = True
    for name, allowed, required_for_linking in defaults.rules:
        grants: list[str] = []
        denials: list[str] = []
        for decided in found:
            if (standing := decided.get(name)) is not None:
                (grants if standing.granted else denials).append(standing.decision_id)
        rests_on += denials or grants
        if not denials and (grants or allowed):
            granted.append(name)
        elif required_for_linking:
            linkable = False
    return workspace.outcome(tuple(granted), tuple(rests_on), linkable, defaults.region)


def is_granted(name: str, defaults: Defaults, found: Sequence[Decided]) -> bool:
    """Whether a person may be addressed for a purpose: a denial of any of the ids counts, then a grant, then the default.

    Args:
        name: the purpose's.
        defaults: what holds where the person is.
        found: what each of the person's ids has decided; those that have decided nothing may be left out.
    """
    answers = [standing.granted for decided in found if (standing := decided.get(name)) is not None]
    if answers:
        return all(answers)
    policy = defaults.policies[name]
    return policy is DefaultPolicy.ALLOW or (policy is DefaultPolicy.SEGMENT and not any(found))


def _without_subject(workspace: WorkspacePurposes, defaults: Defaults, answers: Mapping[str, bool]) -> Outcome:
    """The outcome of an event that belongs to nobody who could be kept: its own denials count, for itself alone."""
    denied = {name for name, granted in answers.items() if not granted}
    granted = tuple(name for name in defaults.unanswered.granted_purposes if name not in denied)
    linkable = all(name in granted for name, _, required in defaults.rules if required)
    return workspace.outcome(granted, (), linkable, defaults.region)


@lru_cache(maxsize=512)
def signal_of(preferences: Preferences, signals: Signals) -> bytes:
    """The answers that an event carries as the evidence that is kept with them: a JSON object by kind of signal.

    Made once for all decisions that rest on it, and many people answer alike. Not by orjson, whose bytes keep a room of some kilobytes.
    """
    given: dict[str, object] = {"segment": dict(preferences)} if preferences else {}
    signal = msgspec.json.encode(given | {kind: raw.decode(errors="replace") for kind, raw in signals})
    return signal if len(signal) <= MAX_SIGNAL else b""
