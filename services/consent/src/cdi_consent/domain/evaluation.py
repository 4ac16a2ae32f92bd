"""Evaluation: a batch of events in order, the decisions that they carry, and what each may be used for.

Deliberately absent: the event's other content, suppressions, and any store; what is in force is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from cdi_consent.domain.decisions import UNDECIDED, Decided, Decision, Standing, Standings, Subject, decision_id, proof_of
from cdi_consent.domain.purposes import WITHOUT_PURPOSES, Outcome, Purposes, WorkspacePurposes

REMEMBERED: Final = 16_384
"""People of whom is remembered what follows from their decisions. Only that: what they decided is read for every batch."""

Preferences: TypeAlias = tuple[tuple[str, bool], ...]
"""The answers that an event carries, as (category, granted)."""


class Item(NamedTuple):
    """What consent needs to know of one event.

    Attributes:
        workspace_id: the workspace.
        message_id: the event, the proof of the decisions that it carries; may be left empty if it carries none.
        subjects: whose event it is; empty when it has no id that can be a subject's.
        preferences: the answers that it carries.
        event_us: when it happened.
    """

    workspace_id: str
    message_id: str
    subjects: tuple[Subject, ...]
    preferences: Preferences = ()
    event_us: int = 0


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


def subjects_with_news(items: Iterable[Item], purposes: Purposes, standings: Standings, now_us: int) -> set[Subject]:
    """Whose decisions the items change or confirm.

    It is enough to compare each item with what was in force before the batch: the first item that differs from it is news, and as
    long as none does, nothing has changed.
    """
    found: set[Subject] = set()
    for item in items:
        if item.preferences and (workspace := purposes.get(item.workspace_id)) is not None:
            answers = answers_of(item.preferences, workspace)
            decide_us = min(item.event_us, now_us)
            for subject in item.subjects:
                if standings.get(subject, UNDECIDED).changed_by(answers, decide_us):
                    found.add(subject)
    return found


def evaluate(items: Iterable[Item], purposes: Purposes, standings: Standings, changing: Collection[Subject], now_us: int) -> Evaluation:
    """Judges events in order; an answer that an event carries holds for itself and for later ones.

    Args:
        items: the events.
        purposes: the snapshot.
        standings: what is in force for the subjects of the items before the first of them.
        changing: whose carried answers are looked at, see ``subjects_with_news``.
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
        if item.preferences:
            if not item.subjects:
                outcomes.append(_without_subject(workspace, answers_of(item.preferences, workspace)))
                continue
            for subject in item.subjects:
                if subject in changing:
                    _take(item, subject, answers_of(item.preferences, workspace), running, now_us, evaluation)
        found = [decided for subject in item.subjects if (decided := running.get(subject)) is not None]
        outcomes.append(_judge(workspace, *found) if found else workspace.default)
    return evaluation


@lru_cache(maxsize=512)
def answers_of(preferences: Preferences, workspace: WorkspacePurposes) -> Mapping[str, bool]:
    """The carried answers by purpose. Unknown categories say nothing; of two categories of one purpose the stricter counts."""
    answers: dict[str, bool] = {}
    for category, granted in preferences:
        for name in workspace.by_category.get(category, ()):
            answers[name] = granted and answers.get(name, True)
    return answers


def carried_id(item: Item, subject: Subject, purpose: str, granted: bool) -> str:
    """The id of an answer that an event carries."""
    return decision_id("event", subject, purpose, granted, item.event_us, proof_of(item.message_id))


def earlier_than_batch(items: Sequence[Item], purposes: Purposes, standings: Standings) -> dict[tuple[Subject, str], list[str]]:
    """Which standings were made by these very items, because the batch was evaluated before.

    To give the same answers again, evaluation must start from what was in force before the batch.

    Returns:
        (subject, purpose) → the ids of all decisions that the batch carries on it.
    """
    carrying = {proof_of(item.message_id): item for item in items if item.preferences and item.workspace_id in purposes}
    if not carrying:
        return {}
    is_foreign = carrying.keys().isdisjoint
    own = [
        (subject, purpose)
        for subject, decided in standings.items()
        if not is_foreign(decided.proofs)
        for purpose, standing in decided.by_purpose.items()
        if (item := carrying.get(standing.proof)) is not None
        and subject in item.subjects
        and carried_id(item, subject, purpose, standing.granted) == standing.decision_id
    ]
    found: dict[tuple[Subject, str], list[str]] = {key: [] for key in own}
    for item in carrying.values() if own else ():
        for purpose, granted in answers_of(item.preferences, purposes[item.workspace_id]).items():
            for subject in item.subjects:
                if (subject, purpose) in found:
                    found[subject, purpose].append(carried_id(item, subject, purpose, granted))
    return found


def _take(
    item: Item, subject: Subject, answers: Mapping[str, bool], running: dict[Subject, Decided], now_us: int, evaluation: Evaluation
) -> None:
    """Adds the answers that are news to ``evaluation``; in ``running`` they take effect unless they come too late."""
    decide_us = min(item.event_us, now_us)
    before = running.get(subject, UNDECIDED)
    if not before.changed_by(answers, decide_us):
        return
    own = dict(before.by_purpose)
    for purpose, granted in answers.items():
        standing = own.get(purpose)
        if standing is None or standing.granted != granted:
            identity = carried_id(item, subject, purpose, granted)
            decision = Decision(identity, subject, purpose, granted, decide_us, now_us, proof_of(item.message_id))
            evaluation.decisions.append(decision)
            if standing is None or standing.precedence < decision.standing.precedence:
                own[purpose] = decision.standing
        elif standing.is_confirmed_at(decide_us):
            own[purpose] = evaluation.confirmations[subject, purpose] = standing._replace(decide_us=decide_us)
    running[subject] = Decided(own)


@lru_cache(maxsize=REMEMBERED)
def _judge(workspace: WorkspacePurposes, *found: Decided) -> Outcome:
    """The outcome for subjects of whom at least one has decided something."""
    granted: list[str] = []
    rests_on: list[str] = []
    linkable = True
    for purpose in workspace.purposes:
        name = purpose.name
        on_it = [standing for decided in found if (standing := decided.by_purpose.get(name)) is not None]
        denials = [standing for standing in on_it if not standing.granted]
        rests_on += [standing.decision_id for standing in denials or on_it]
        if not denials and (on_it or purpose.allowed_by_default):
            granted.append(name)
        elif purpose.required_for_linking:
            linkable = False
    return Outcome(tuple(granted), tuple(rests_on), linkable)


def _without_subject(workspace: WorkspacePurposes, answers: Mapping[str, bool]) -> Outcome:
    """The outcome of an event that belongs to nobody who could be kept: its own denials count, for itself alone."""
    denied = {name for name, granted in answers.items() if not granted}
    granted = tuple(name for name in workspace.default.granted_purposes if name not in denied)
    linkable = all(purpose.name in granted for purpose in workspace.purposes if purpose.required_for_linking)
    return Outcome(granted, (), linkable)
