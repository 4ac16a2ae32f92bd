"""The chain of a subject's lines: each holds the hash of the one before, so that a changed, missing or moved line is found.

The hash of a line is SHA-256 over a JSON array without spaces, UTF-8, of: ``"cdi.consent.line/1"``, the hash of the line before as hex
(empty for the first), the place in the chain from 1, decision id, workspace, subject type, subject id, purpose, granted, decide time and
record time in microseconds since 1970, source (its number), purpose version, policy version, proof, and SHA-256 of the signal as hex (empty
without one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import orjson

from cdi_consent.domain.decisions import Decision, Subject

FORM: Final = "cdi.consent.line/1"
"""What is hashed. Another form needs another name: lines that were hashed must stay verifiable."""


class Link(NamedTuple):
    """A line's place in its chain.

    Attributes:
        position: from 1.
        previous: the hash of the line before; empty for the first.
        digest: the hash of the line.
    """

    position: int
    previous: bytes
    digest: bytes


START: Final = Link(0, b"", b"")
"""What stands before the first line."""


class Line(NamedTuple):
    """A decision as it stands in the ledger."""

    decision: Decision
    link: Link


class Flaw(IntEnum):
    """How a chain is broken. The numbers are those of ``cdi.consent.v1.LedgerFlaw``."""

    CHANGED = 1
    MISSING = 2
    REORDERED = 3


class Break(NamedTuple):
    """A place where a chain does not hold.

    Attributes:
        subject: whose.
        position: in the chain.
        decision_id: the line there; empty if it is missing.
        flaw: what is wrong.
    """

    subject: Subject
    position: int
    decision_id: str
    flaw: Flaw


def digest_of(decision: Decision, position: int, previous: bytes) -> bytes:
    """The hash of a line."""
    signal = hashlib.sha256(decision.signal).hexdigest() if decision.signal else ""
    content = (
        FORM,
        previous.hex(),
        position,
        decision.decision_id,
        *decision.subject,
        decision.purpose,
        decision.granted,
        decision.decide_us,
        decision.record_us,
        int(decision.source),
        decision.purpose_version,
        decision.policy_version,
        decision.proof,
        signal,
    )
    return hashlib.sha256(orjson.dumps(content)).digest()


def linked(decisions: Iterable[Decision], heads: dict[Subject, Link]) -> list[Line]:
    """New lines in the order given, each behind the last of its subject; moves ``heads`` on.

    Args:
        decisions: to be added.
        heads: the last link of each subject; absent where there is none.
    """
    lines: list[Line] = []
    for decision in decisions:
        _, _, previous = head = heads.get(decision.subject, START)
        position = head.position + 1
        link = heads[decision.subject] = Link(position, previous, digest_of(decision, position, previous))
        lines.append(Line(decision, link))
    return lines


def breaks(subject: Subject, lines: Iterable[Line], head: Link | None) -> Iterator[Break]:
    """Where a chain does not hold.

    Args:
        subject: whose.
        lines: all of it, by place in the chain.
        head: the last link as it is kept beside the ledger, so that a cut end is found; ``None`` if it is gone.
    """
    last = START
    for decision, link in lines:
        is_next = link.position == last.position + 1
        if link.position > last.position + 1:
            yield Break(subject, last.position + 1, "", Flaw.MISSING)
        if link.position <= last.position or (is_next and link.previous != last.digest):
            yield Break(subject, link.position, decision.decision_id, Flaw.REORDERED)
        elif link.digest != digest_of(decision, link.position, link.previous):
            yield Break(subject, link.position, decision.decision_id, Flaw.CHANGED)
        last = link
    if head is None or head.position > last.position:
        yield Break(subject, last.position + 1, "", Flaw.MISSING)
    elif head.digest != last.digest:
        yield Break(subject, last.position, "", Flaw.CHANGED)
