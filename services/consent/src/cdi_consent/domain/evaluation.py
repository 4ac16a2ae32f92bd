"""Evaluation: a batch of events in order, the decisions that they carry, and what each may be used for.

Deliberately absent: the event's other content, suppressions, and any store; what is in force is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from cdi_consent.domain.decisions import CONFIRM_AFTER_US, Decision, Standing, Standings, Subject, decision_id, proof_of
from cdi_consent.domain.purposes import WITHOUT_PURPOSES, Outcome, Purposes, WorkspacePurposes


class Item(NamedTuple):
    """What consent needs to know of one event.

    Attributes:
        workspace_id: the workspace.
        message_id: the event, the proof of the decisions that it carries; may be left empty if it carries none.
        subjects: whose event it is; empty when it has no id that can be a subject's.
        preferences: the answers that it carries, as (category, granted).
        event_us: when it happened.
    """

    workspace_id: str
    message_id: str
    subjects: tuple[Subject, ...]
    preferences: tuple[tuple[str, bool], ...] = ()
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

    @property
    def has_news(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.decisions or self.confirmations)


def evaluate(items: Iterable[Item], purposes: Purposes, standings: Standings, now_us: int) -> Evaluation:
    """Judges events in order; an answer that an event carries holds for itself and for later ones.

    Args:
        items: the events.
        purposes: the snapshot.
        standings: what is in force for the subjects of the items before the first of them.
        now_us: no decision was taken later than this; a client's clock that says so is wrong.
    """
    running: dict[Subject, Mapping[str, Standing]] = dict(standings)
    outcomes: list[Outcome] = []
    evaluation = Evaluation(outcomes, [], {})
    for item in items:
        workspace = purposes.get(item.workspace_id)
        if workspace is None:
            outcomes.append(WITHOUT_PURPOSES)
            continue
        if item.preferences:
            answers = answers_of(item, workspace)
            if not item.subjects:
                outcomes.append(_without_subject(workspace, answers))
                continue
            _take(item, answers, running, now_us, evaluation)
        found = [own for subject in item.subjects if (own := running.get(subject)) is not None]
        outcomes.append(_judge(workspace, found) if found else workspace.default)
    return evaluation


def answers_of(item: Item, workspace: WorkspacePurposes) -> dict[str, bool]:
    """The answers of an event by purpose. Unknown categories say nothing; of two categories of one purpose the stricter counts."""
    answers: dict[str, bool] = {}
    for category, granted in item.preferences:
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
    own = [
        (subject, purpose)
        for subject, by_purpose in standings.items()
        for purpose, standing in by_purpose.items()
        if (item := carrying.get(standing.proof)) is not None
        and subject in item.subjects
        and carried_id(item, subject, purpose, standing.granted) == standing.decision_id
    ]
    found: dict[tuple[Subject, str], list[str]] = {key: [] for key in own}
    for item in carrying.values() if own else ():
        for purpose, granted in answers_of(item, purposes[item.workspace_id]).items():
            for subject in item.subjects:
                if (subject, purpose) in found:
                    found[subject, purpose].append(carried_id(item, subject, purpose, granted))
    return found


def _take(
    item: Item, answers: Mapping[str, bool], running: dict[Subject, Mapping[str, Standing]], now_us: int, evaluation: Evaluation
) -> None:
    """Adds the answers that are news to ``evaluation``; in ``running`` they take effect unless they come too late."""
    decide_us = min(item.event_us, now_us)
    for subject in item.subjects:
        in_force = running.get(subject, {})
        for purpose, granted in answers.items():
            standing = in_force.get(purpose)
            if standing is None or standing.granted != granted:
                identity = carried_id(item, subject, purpose, granted)
                decision = Decision(identity, subject, purpose, granted, decide_us, now_us, proof_of(item.message_id))
                evaluation.decisions.append(decision)
                if standing is None or standing.precedence < decision.standing.precedence:
                    in_force = {**in_force, purpose: decision.standing}
            elif decide_us > standing.decide_us + CONFIRM_AFTER_US:
                confirmed = standing._replace(decide_us=decide_us)
                evaluation.confirmations[subject, purpose] = confirmed
                in_force = {**in_force, purpose: confirmed}
        if in_force:
            running[subject] = in_force


def _judge(workspace: WorkspacePurposes, found: Sequence[Mapping[str, Standing]]) -> Outcome:
    """The outcome for subjects of whom at least one has decided something."""
    granted: list[str] = []
    rests_on: list[str] = []
    linkable = True
    for purpose in workspace.purposes:
        name = purpose.name
        decided = [standing for own in found if (standing := own.get(name)) is not None]
        denials = [standing for standing in decided if not standing.granted]
        rests_on += [standing.decision_id for standing in denials or decided]
        if not denials and (decided or purpose.allowed_by_default):
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
