"""Decisions: whose, their ids, and which of two is in force."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import orjson

from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US

USER_ID: Final = "user_id"
ANONYMOUS_ID: Final = "anonymous_id"
SUBJECT_TYPES: Final = (USER_ID, ANONYMOUS_ID)

MAX_SUBJECT_ID: Final = 512
"""Characters of an id that can be a subject's."""

MAX_PROOF: Final = 1_000
"""Characters of a proof."""

MAX_SIGNAL: Final = 16_384
"""Bytes of a signal that are kept with a decision."""

CONFIRM_AFTER_US: Final = 1_800_000_000
"""The same answer again adds no line, but from this age of a standing on it moves the standing's time. Otherwise an answer from between
the two that arrives late, from a device that was offline, would seem to be the latest. Not at every event: many carry every answer, and
half an hour is about once per visit."""

Subject: TypeAlias = tuple[str, str, str]
"""Whose decision: workspace, ``user_id`` or ``anonymous_id``, the id. A plain tuple, because one is made per id and event."""


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The decision in force of one subject on one purpose. A struct, because thousands are read for every batch.

    Attributes:
        granted: yes or no.
        decide_us: when it was taken or last confirmed, microseconds since 1970.
        decision_id: its line of the ledger.
        proof: where it came from.
    """

    granted: bool
    decide_us: int
    decision_id: str
    proof: str

    @property
    def precedence(self) -> tuple[int, bool, str]:
        """Of two decisions the one with the greater value is in force: the later, at the same instant the denial."""
        return self.decide_us, not self.granted, self.decision_id

    def is_confirmed_at(self, decide_us: int) -> bool:
        """Whether the same answer at that time moves this one's time."""
        return decide_us > self.decide_us + CONFIRM_AFTER_US


Decided: TypeAlias = Mapping[str, Standing]
"""What one subject has decided: purpose → the decision in force."""

UNDECIDED: Final[Decided] = {}
"""What somebody has decided of whom nothing is known."""

Standings: TypeAlias = Mapping[Subject, Decided]
"""What is in force. Subjects without any decision are absent."""


def is_news(answers: Mapping[str, bool], decided: Decided, decide_us: int) -> bool:
    """Whether one of these answers differs from what is in force or confirms it."""
    for purpose, granted in answers.items():
        standing = decided.get(purpose)
        # ``is_confirmed_at`` written out: this runs for every subject of every event.
        if standing is None or standing.granted != granted or decide_us > standing.decide_us + CONFIRM_AFTER_US:
            return True
    return False


class Source(IntEnum):
    """How a decision came. The numbers are those of ``cdi.consent.v1.DecisionSource``."""

    UNKNOWN = 0
    EVENT = 1
    RECORD = 2
    PROFILE = 3
    SPLIT = 4


class Decision(NamedTuple):
    """One answer of one subject on one purpose: a line of the ledger.

    Attributes:
        decision_id: see ``decision_id``.
        subject: whose.
        purpose: the purpose's name.
        granted: yes or no.
        decide_us: when it was taken, never after ``record_us``.
        record_us: when the ledger took it.
        proof: an event's message id, the caller's own reference, or the id of another decision; ``source`` tells which.
        source: how it came.
        purpose_version: the purpose's version under which it was given; 0 if not known.
        policy_version: the version of the workspace's policy then; 0 if there was none.
        signal: what was answered, as it was sent.
    """

    decision_id: str
    subject: Subject
    purpose: str
    granted: bool
    decide_us: int
    record_us: int
    proof: str
    source: Source = Source.UNKNOWN
    purpose_version: int = 0
    policy_version: int = 0
    signal: bytes = b""

    @property
    def standing(self) -> Standing:
        """The decision as it stands when it is in force."""
        return Standing(self.granted, self.decide_us, self.decision_id, self.proof)


def in_force(
    before: Standings,
    new: Iterable[Decision],
    confirmations: Mapping[tuple[Subject, str], Standing],
    restored: Mapping[tuple[Subject, str], Standing | None] = {},
) -> dict[Subject, dict[str, Standing]]:
    """What is in force after new decisions, for the subjects that they or the confirmations concern.

    A confirmation moves the time of the decision that it names, while that is in force.
    Confirmations come first, so that a decision older than the confirmation of what stands does not take its place; a confirmation
    of a new decision comes with that decision. What a split restores, or takes away without a trace, replaces what was in force.
    """
    after: dict[Subject, dict[str, Standing]] = {}

    def offer(subject: Subject, purpose: str, offered: Standing) -> None:
        own = after.get(subject)
        if own is None:
            own = after[subject] = dict(before.get(subject, UNDECIDED))
        if (known := own.get(purpose)) is None or known.precedence < offered.precedence:
            own[purpose] = offered

    for (subject, purpose), confirmed in confirmations.items():
        known = before.get(subject, UNDECIDED).get(purpose)
        if known is not None and known.decision_id == confirmed.decision_id:
            offer(subject, purpose, confirmed)
    for (subject, purpose), standing in restored.items():
        own = after.setdefault(subject, dict(before.get(subject, UNDECIDED)))
        own.pop(purpose, None)
        if standing is not None:
            own[purpose] = standing
    for decision in new:
        if decision.source is Source.SPLIT:
            continue
        confirmation = confirmations.get((decision.subject, decision.purpose))
        if confirmation is None or confirmation.decision_id != decision.decision_id:
            confirmation = decision.standing
        offer(decision.subject, decision.purpose, confirmation)
    return after


Origin: TypeAlias = Literal["event", "record", "profile", "split"]
"""How a decision came, as its id tells it. Two origins never give the same id."""


def decision_id(origin: Origin, subject: Subject, purpose: str, granted: bool, decide_us: int, proof: str) -> str:
    """The id of a decision: the same for the same answer, so that recording it again adds no line.

    A UUIDv7 (RFC 9562) whose time is when the person decided, with the microseconds in ``rand_a`` (method 3) and a hash as ``rand_b``.
    """
    moment = min(max(decide_us, 0), MAX_INSTANT_US)
    milliseconds, micros = divmod(moment, 1_000)
    # Encoded as JSON, because an id may contain any separator.
    content = orjson.dumps((origin, subject, purpose, granted, decide_us, proof))
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 2
    value = milliseconds << 80 | 0x7 << 76 | (micros << 12) // 1_000 << 64 | 0b10 << 62 | digest
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def can_be_subject(subject_id: str) -> bool:
    """Whether an id can be kept: not empty, not absurdly long, and without NUL, which Postgres has no way to store."""
    return 0 < len(subject_id) <= MAX_SUBJECT_ID and "\0" not in subject_id


def proof_of(message_id: str) -> str:
    """A message id as the proof of the decisions that the event carries."""
    return message_id[:MAX_PROOF].replace("\0", "\N{REPLACEMENT CHARACTER}")


def instant(seconds: int, nanos: int) -> int:
    """A protobuf timestamp as microseconds since 1970, within the range of timestamps whatever its fields say."""
    micros = seconds * 1_000_000 + nanos // 1_000
    return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else min(max(micros, MIN_INSTANT_US), MAX_INSTANT_US)
