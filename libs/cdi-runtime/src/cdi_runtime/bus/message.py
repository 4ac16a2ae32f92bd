"""What travels over the bus, and how a message of it can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cdi_kernel.faults import Fault

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish.

    Attributes:
        subject: from ``cdi_kernel.topology``.
        payload: at most the server's ``max_payload``.
        message_id: JetStream drops a second one with the same id within its duplicate window.
        headers: further headers.
    """

    subject: str
    payload: bytes
    message_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PubAck:
    """JetStream's word that a message is stored: by a majority of the replicas of its stream.

    A stream with one replica is flushed to disk every ``sync_interval`` of the server, so a power cut, unlike a crash of the process,
    may cost what was acknowledged since the last flush (docs/durability.md).
    """

    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Message(Generic[T_co]):
    """A message as a reader gets it.

    Attributes:
        subject: where it was published.
        partition: of the topology; 0 on a stream without partitions.
        sequence: in its stream; rises within a partition.
        headers: as published.
        payload: as published.
        body: the decoded payload.
        stored_us: when JetStream stored it, in microseconds since 1970.
        deliveries: how often it was delivered, this time included.
    """

    subject: str
    partition: int
    sequence: int
    headers: Mapping[str, str]
    payload: bytes
    body: T_co
    stored_us: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class StreamCount:
    """What a subject of a stream holds."""

    messages: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The message's effect is durable: acknowledge it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: hold the message, and everything behind it in its partition, for ``after`` seconds.

    A delayed negative acknowledgement would let later messages of the partition overtake, so the reader keeps the message in hand.
    """

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: store a dead letter, then acknowledge. JetStream does not dead-letter by itself."""

    fault: Fault


Outcome = Done | Retry | Reject


class Halt(Exception):
    """Nearly everything is being rejected, as after a bad deploy: the reader stops, keeps what it has, and tries again later.

    Attributes:
        rejected: rejected items.
        handled: items looked at.
    """

    def __init__(self, rejected: int, handled: int) -> None:
        super().__init__(f"{rejected} of {handled} rejected: stopped instead of draining the stream into dead letters")
        self.rejected = rejected
        self.handled = handled


def partition_in(subject: str) -> int:
    """The partition in a subject's last token; 0 on a stream without partitions."""
    last = subject.rpartition(".")[2]
    return int(last) if last.isdigit() else 0
