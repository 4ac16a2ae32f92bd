"""The chain of a subject's lines: each holds the hash of the one before, so that a changed, missing or moved line is found.

The hash of a line is SHA-256 over a JSON array without spaces, UTF-8, of: ``"cdi.consent.line/1"``, the hash of the line before as hex
(empty for the first), the place in the chain from 1, decision id, workspace, subject type, purpose, granted, decide time and record time in
microseconds since 1970, source (its number), purpose version, policy version, and the line's commitment as hex.

The **commitment** stands for what is personal in a line: SHA-256 over the line's salt, 16 random bytes, and a JSON array of subject id,
proof, and SHA-256 of the signal as hex (empty without one). An erasure takes these away together with the salt. The commitment stays, and
the chain goes on holding; without the salt the commitment tells nothing about what it was made of, not even to whoever guesses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

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


SALT_BYTES: Final = 16

ERASED: Final = "erased:"
"""How the subject id of a line begins whose person was erased; behind it a keyed digest of the id and a number of the chain."""


class Seal(NamedTuple):
    """What stands in a line's hash for what is personal.

    Attributes:
        salt: 16 random bytes; empty in a line whose person was erased.
        commitment: see the module.
    """

    salt: bytes
    commitment: bytes


Salt: TypeAlias = Callable[[], bytes]
"""Makes 16 random bytes."""


class Line(NamedTuple):
    """A decision as it stands in the ledger."""

    decision: Decision
    link: Link
    seal: Seal

    @property
    def is_whole(self) -> bool:
        """Whether what is personal is what was sealed, or gone altogether."""
        if self.seal.salt:
            return self.seal.commitment == commitment_of(self.decision, self.seal.salt)
        return self.decision.subject[2].startswith(ERASED) and not self.decision.proof and not self.decision.signal


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


def commitment_of(decision: Decision, salt: bytes) -> bytes:
    """What stands for the personal part of a line."""
    signal = hashlib.sha256(decision.signal).hexdigest() if decision.signal else ""
    return hashlib.sha256(salt + orjson.dumps((decision.subject[2], decision.proof, signal))).digest()


def digest_of(decision: Decision, position: int, previous: bytes, commitment: bytes) -> bytes:
    """The hash of a line."""
    content = (
        FORM,
        previous.hex(),
        position,
        decision.decision_id,
        *decision.subject[:2],
        decision.purpose,
        decision.granted,
        decision.decide_us,
        decision.record_us,
        int(decision.source),
        decision.purpose_version,
        decision.policy_version,
        commitment.hex(),
    )
    return hashlib.sha256(orjson.dumps(content)).digest()


def linked(decisions: Iterable[Decision], heads: dict[Subject, Link], salt: Salt) -> list[Line]:
    """New lines in the order given, each behind the last of its subject; moves ``heads`` on.

    Args:
        decisions: to be added.
        heads: the last link of each subject; absent where there is none.
        salt: asked once for each line.
    """
    lines: list[Line] = []
    for decision in decisions:
        own = salt()
        seal = Seal(own, commitment_of(decision, own))
        _, _, previous = head = heads.get(decision.subject, START)
        position = head.position + 1
        link = heads[decision.subject] = Link(position, previous, digest_of(decision, position, previous, seal.commitment))
        lines.append(Line(decision, link, seal))
    return lines


def breaks(subject: Subject, lines: Iterable[Line], head: Link | None) -> Iterator[Break]:
    """Where a chain does not hold.

    Args:
        subject: whose.
        lines: all of it, by place in the chain.
        head: the last link as it is kept beside the ledger, so that a cut end is found; ``None`` if it is gone.
    """
    last = START
    for line in lines:
        decision, link, seal = line
        is_next = link.position == last.position + 1
        if link.position > last.position + 1:
            yield Break(subject, last.position + 1, "", Flaw.MISSING)
        if link.position <= last.position or (is_next and link.previous != last.digest):
            yield Break(subject, link.position, decision.decision_id, Flaw.REORDERED)
        elif link.digest != digest_of(decision, link.position, link.previous, seal.commitment) or not line.is_whole:
            yield Break(subject, link.position, decision.decision_id, Flaw.CHANGED)
        last = link
    if head is None or head.position > last.position:
        yield Break(subject, last.position + 1, "", Flaw.MISSING)
    elif head.digest != last.digest:
        yield Break(subject, last.position, "", Flaw.CHANGED)
