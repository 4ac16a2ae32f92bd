"""Consent of persons with several ids: a denial travels to the other ids, and is lifted where a split shows that it was somebody else's.

A grant never travels: it counts for the ids that gave it. An id that grants after a denial has reached it has the later answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import UNDECIDED, Decision, Source, Standing, Standings, Subject, decision_id
from cdi_consent.domain.purposes import Purpose, WorkspacePurposes


class Moment(NamedTuple):
    """When something is decided.

    Attributes:
        since_us: from when on the ids are one person, or no longer; 0 for always.
        now_us: the time of recording.
    """

    since_us: int
    now_us: int


def root_of(line: Line) -> str:
    """The id of the denial that a line goes back to: itself, unless it came from another id."""
    return line.decision.proof if line.decision.source is Source.PROFILE else line.decision.decision_id


def inherited(
    subjects: Sequence[Subject], standings: Standings, lines: Mapping[str, Line], workspace: WorkspacePurposes, moment: Moment
) -> list[Decision]:
    """The denials that reach the other ids of a person.

    Args:
        subjects: all ids of the person.
        standings: what is in force of them.
        lines: the ledger's lines of all that is in force, by decision id.
        workspace: its purposes.
        moment: since when they are one person.
    """
    found: list[Decision] = []
    for purpose in workspace.purposes:
        denial = _strictest(subjects, standings, lines, purpose.name)
        if denial is None:
            continue
        root, denied_us = root_of(denial), max(denial.decision.decide_us, moment.since_us)
        for subject in subjects:
            standing = standings.get(subject, UNDECIDED).get(purpose.name)
            if standing is None or (standing.granted and standing.decide_us <= denied_us):
                found.append(_inherited(subject, purpose, root, workspace, min(denied_us, moment.now_us), moment.now_us))
    return found


def _strictest(subjects: Iterable[Subject], standings: Standings, lines: Mapping[str, Line], purpose: str) -> Line | None:
    """The denial that counts for all: one that the person gave before one that came from elsewhere, then the latest."""
    denials = [
        lines[standing.decision_id]
        for subject in subjects
        if (standing := standings.get(subject, UNDECIDED).get(purpose)) is not None
        and not standing.granted
        and standing.decision_id in lines
    ]
    return max(denials, key=lambda line: (line.decision.source is not Source.PROFILE, line.decision.decide_us), default=None)


def _inherited(subject: Subject, purpose: Purpose, root: str, workspace: WorkspacePurposes, decide_us: int, now_us: int) -> Decision:
    identity = decision_id("profile", subject, purpose.name, False, decide_us, root)
    versions = purpose.version, workspace.policy.version
    return Decision(identity, subject, purpose.name, False, decide_us, now_us, root, Source.PROFILE, *versions)


def foreign(person: Collection[Subject], candidates: Iterable[Line], roots: Mapping[str, Subject]) -> list[Line]:
    """Lines in force that go back to a denial of somebody who is another person now.

    Args:
        person: the ids of the one that was split off.
        candidates: lines in force, of these ids and of others.
        roots: whose each denial was, by decision id.
    """
    return [
        line
        for line in candidates
        if line.decision.source is Source.PROFILE
        and (root := roots.get(line.decision.proof)) is not None
        and (root in person) != (line.decision.subject in person)
    ]


def lifted(line: Line, own: Standing | None, workspace: WorkspacePurposes, moment: Moment) -> Decision:
    """The line that says that a denial from elsewhere no longer counts.

    Args:
        line: the denial.
        own: what the id answered itself; ``None`` for nothing.
        workspace: its purposes.
        moment: when the split was.
    """
    _, subject, name, *_ = decision = line.decision
    granted = own is not None and own.granted
    decide_us = min(moment.since_us, moment.now_us)
    identity = decision_id("split", subject, name, granted, decide_us, decision.decision_id)
    purpose = workspace.by_name.get(name)
    versions = purpose.version if purpose is not None else 0, workspace.policy.version
    return Decision(identity, subject, name, granted, decide_us, moment.now_us, decision.decision_id, Source.SPLIT, *versions)
