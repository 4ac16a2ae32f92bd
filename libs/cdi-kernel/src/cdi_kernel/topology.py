"""Streams, subjects, durable names and their limits: the only place that spells them.

Source of the table: docs/topology.md, design §4. Services ask for a name here; deploy/k8s generates permissions from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import xxhash

DEFAULT_PARTITIONS: Final = 8
"""Partitions of an installation unless set at install; never changed afterwards, because a person's order hangs on it."""

MAX_BATCH_EVENTS: Final = 1_000
"""Events in one bus message, at most."""

MAX_BATCH_BYTES: Final = 512 * 1024
"""Payload of one bus message in bytes, at most, unless a single event is larger."""

DUPLICATE_WINDOW_SECONDS: Final = 600
"""How long JetStream remembers a ``Nats-Msg-Id``. A convenience against repeated publishes; no guarantee rests on it."""

_DAY: Final = 86_400
_TOKEN = re.compile(r"[^A-Za-z0-9_-]")


class StreamName(StrEnum):
    """The streams."""

    COLLECTED = "COLLECTED"
    ENRICHED = "ENRICHED"
    REJECTED = "REJECTED"
    IDENTITY = "IDENTITY"
    CONSENT = "CONSENT"
    PRIVACY = "PRIVACY"
    DEAD_LETTERS = "DEAD_LETTERS"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One JetStream stream.

    Attributes:
        name: the stream.
        subjects: a single wildcard subject.
        max_age_seconds: retention by age.
        writers: services that may publish to it.
        readers: services that may consume it.
    """

    name: StreamName
    subjects: str
    max_age_seconds: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]


STREAMS: Final[tuple[StreamSpec, ...]] = (
    StreamSpec(StreamName.COLLECTED, "cdi.collected.*", 3 * _DAY, ("collector",), ("enrichment",)),
    StreamSpec(StreamName.ENRICHED, "cdi.enriched.*", 7 * _DAY, ("enrichment",), ("router", "warehouse-loader")),
    StreamSpec(StreamName.REJECTED, "cdi.rejected.*", 30 * _DAY, ("collector", "enrichment"), ("warehouse-loader",)),
    StreamSpec(StreamName.IDENTITY, "cdi.identity.*", 30 * _DAY, ("identity",), ("warehouse-loader", "router", "identity", "consent")),
    StreamSpec(StreamName.CONSENT, "cdi.consent.*", 30 * _DAY, ("consent",), ("router", "enrichment", "consent")),
    StreamSpec(
        StreamName.PRIVACY,
        "cdi.privacy.*",
        90 * _DAY,
        ("consent",),
        ("identity", "enrichment", "router", "warehouse-loader"),
    ),
    StreamSpec(
        StreamName.DEAD_LETTERS,
        "cdi.dead.*",
        30 * _DAY,
        ("collector", "enrichment", "identity", "consent", "router", "warehouse-loader"),
        (),
    ),
)


def stream(name: StreamName) -> StreamSpec:
    """The specification of a stream."""
    return next(spec for spec in STREAMS if spec.name is name)


def partition_of(workspace_id: str, key: str, partitions: int) -> int:
    """The partition of a person: ``0 ≤ result < partitions``.

    Args:
        workspace_id: the workspace.
        key: anonymous id, else user id, else message id (design §3, law 3).
        partitions: partitions of the installation.
    """
    return xxhash.xxh3_64_intdigest(f"{workspace_id}\x1f{key}".encode()) % partitions


def collected(partition: int) -> str:
    """Subject of accepted events of a partition."""
    return f"cdi.collected.{partition}"


def enriched(partition: int) -> str:
    """Subject of enriched events of a partition."""
    return f"cdi.enriched.{partition}"


def rejected(workspace_id: str) -> str:
    """Subject of rejected events of a workspace."""
    return f"cdi.rejected.{token(workspace_id)}"


def identity(kind: str) -> str:
    """Subject of changes of the identity graph; kinds: ``merged``, ``changed``."""
    return f"cdi.identity.{kind}"


def consent(workspace_id: str) -> str:
    """Subject of recorded decisions of a workspace."""
    return f"cdi.consent.{token(workspace_id)}"


def privacy(kind: str) -> str:
    """Subject of privacy requests; kinds: ``erase``, ``suppress``, ``access``."""
    return f"cdi.privacy.{kind}"


def dead(service: str) -> str:
    """Subject of dead letters of a service."""
    return f"cdi.dead.{service}"


def members(reader: str) -> str:
    """Core subject on which the replicas of a reader tell each other that they live. Not stored."""
    return f"cdi.members.{token(reader)}"


def durable(reader: str, partition: int) -> str:
    """Durable consumer of a reader on a partition. A destination is a reader of its own: ``router-<workspace>-<destination>``."""
    return f"{token(reader)}-p{partition}"


def destination_reader(workspace_id: str, destination: str) -> str:
    """The reader of a destination; its consumers are independent of every other destination's (design §3, law 7)."""
    return f"router-{token(workspace_id)}-{token(destination)}"


def token(text: str) -> str:
    """``text`` as one subject token: other than letters, digits, ``_`` and ``-`` become ``_``, made distinct by a hash."""
    cleaned = _TOKEN.sub("_", text)
    return cleaned if cleaned == text and text else f"{cleaned}_{xxhash.xxh3_64_hexdigest(text.encode())[:8]}"
