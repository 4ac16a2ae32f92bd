"""What is remembered of a subject between batches: what is in force, and how the last event of the person was judged by it.

Whether it still holds is not decided here: ``memory.py`` drops a subject as soon as anything about it has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from cdi_consent.domain.decisions import CONFIRM_AFTER_US, Decided, Subject
from cdi_consent.domain.evaluation import Item, answers_of
from cdi_consent.domain.purposes import Purposes, WorkspacePurposes
from cdi_kernel.clock import MAX_INSTANT_US


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """How an event was judged, and what has to be the same for another one to be judged alike.

    Attributes:
        answer: the outcome as it was written for the caller: shorter, and written once for many events.
        other: what was known of its second subject.
        workspace: the purposes, all of them and the policy in one version.
        region, answered: of the event, see ``Item``.
        said: hash of the answers that it carried, because they may be long; 0 without any.
        quiet_until_us: answers that were given later confirm what is in force, and so are news.
    """

    answer: bytes
    other: Known | None
    workspace: WorkspacePurposes
    region: str
    answered: bool
    said: int
    quiet_until_us: int


class Known(msgspec.Struct, gc=False):
    """What is known of a subject. Equal only by being the same: what changes becomes another one.

    Attributes:
        decided: what is in force.
        digest: see ``digest_of``.
        proofs: of what is in force.
        verdict: on the last event whose first subject it was.
        buried_in: the generation of tombstones at which ``may_be_buried`` was found out.
        may_be_buried: it may have a tombstone.
    """

    decided: Decided
    digest: bytes
    proofs: tuple[str, ...] = ()
    verdict: Verdict | None = None
    buried_in: int = -1
    may_be_buried: bool = False


KnownSubjects: TypeAlias = Mapping[Subject, Known]


def known_of(subject: Subject, decided: Decided) -> Known:
    """A subject of whom this is in force."""
    return Known(decided, digest_of(subject), tuple({standing.proof for standing in decided.values()}))


def digest_of(subject: Subject) -> bytes:
    """SHA-256 of the length of the workspace, ":", the workspace, the type, ":", and the id, as the database makes it of changes."""
    workspace_id, kind, value = subject
    return hashlib.sha256(f"{len(workspace_id)}:{workspace_id}{kind}:{value}".encode()).digest()


def recalled(items: Iterable[Item], purposes: Purposes, known: KnownSubjects) -> list[bytes | None]:
    """The answers to events that are judged like an earlier one of the same person; ``None`` for those that have to be judged.

    An event is never recalled whose answers would be recorded, or were: what is in force may be its own doing. Runs for every event.
    """
    answers: list[bytes | None] = []
    for item in items:
        subjects = item.subjects
        answer: bytes | None = None
        if subjects:
            first = known[subjects[0]]
            other = known[subjects[1]] if len(subjects) > 1 else None
            said = _said(item) if item.preferences or item.signals else 0
            if (
                (verdict := first.verdict) is not None
                and verdict.other is other
                and verdict.workspace is purposes.get(item.workspace_id)
                and verdict.said == said
                and verdict.answered == item.answered
                and verdict.region == item.region
                and (not said or (item.event_us <= verdict.quiet_until_us and not _is_own_doing(item, first, other)))
            ):
                answer = verdict.answer
        answers.append(answer)
    return answers


def remember(item: Item, answer: bytes, workspace: WorkspacePurposes, known: KnownSubjects) -> None:
    """Keeps how an event was judged that has subjects and brought no news."""
    first, *others = (known[subject] for subject in item.subjects)
    said, quiet_until_us = 0, 0
    if item.preferences or item.signals:
        answers = answers_of(item.preferences, item.signals, workspace)
        times = [own.decided[purpose].decide_us for own in (first, *others) for purpose in answers]
        said, quiet_until_us = _said(item), min(times, default=MAX_INSTANT_US) + CONFIRM_AFTER_US
    other = others[0] if others else None
    first.verdict = Verdict(answer, other, workspace, item.region, item.answered, said, quiet_until_us)


def _said(item: Item) -> int:
    return hash((item.preferences, item.signals))


def _is_own_doing(item: Item, first: Known, other: Known | None) -> bool:
    """Whether something that is in force came with this very event."""
    return item.proof in first.proofs or (other is not None and item.proof in other.proofs)
