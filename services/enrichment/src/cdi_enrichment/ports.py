"""What the pipeline needs from outside, as Protocols, and the values that pass through them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1 import tracking_plan_pb2
from cdi.event.v1 import outcome_pb2
from cdi.identity.v1 import rules_pb2
from cdi_enrichment.domain.claims import Place
from cdi_runtime.bus import Outgoing, PubAck


class Position(NamedTuple):
    """A place in COLLECTED.

    Attributes:
        sequence: of the last message that is done.
        stored_us: when JetStream stored that message; tells a stream that was made anew, whose sequences begin again.
    """

    sequence: int
    stored_us: int


START = Position(0, 0)


@dataclass(slots=True)
class Advance:
    """A step of one partition.

    Attributes:
        before: the progress that the step starts at.
        after: the progress that it reaches.
        counts: events by outcome and reason name.
    """

    before: Position
    after: Position
    counts: dict[tuple[int, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """The first occurrence of an event id."""

    partition: int
    place: Place
    seen_time: datetime


class Claims(Protocol):
    """The dedupe window."""

    async def claim(self, wanted: Mapping[bytes, Place], partitions: Mapping[int, int]) -> dict[bytes, Place]:
        """The wanted keys that another place holds; all others are claimed."""
        ...

    async def find(self, key: bytes) -> SeenEvent | None:
        """Who holds a key."""
        ...


class Progress(Protocol):
    """How far each partition has come."""

    async def read(self, partitions: Collection[int]) -> dict[int, Position]:
        """The progress of partitions; one that never moved is missing."""
        ...

    async def advance(self, moves: Mapping[int, Advance]) -> None:
        """Moves all partitions and adds their counts, or none."""
        ...

    async def count_outcomes(self) -> list[outcome_pb2.OutcomeCount]:
        """All counts so far."""
        ...


class Plans(Protocol):
    """The stored tracking plans."""

    async def apply(self, plan: tracking_plan_pb2.TrackingPlan) -> tuple[tracking_plan_pb2.TrackingPlan, bool]:
        """Stores a plan as the newest version of its name, unless it is already."""
        ...

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[tracking_plan_pb2.TrackingPlan]:
        """Plans in force by name."""
        ...

    async def revision(self) -> int:
        """Rises with every change."""
        ...

    async def all_in_force(self) -> tuple[int, Sequence[tracking_plan_pb2.TrackingPlan]]:
        """The revision and all plans in force."""
        ...


class Evaluated(NamedTuple):
    """What consent says of a batch.

    Attributes:
        results: one per input, in order.
        tombstones: generation of the tombstones that counted; ``None`` when none was looked at.
    """

    results: Sequence[consent_service_pb2.EvaluatedConsent]
    tombstones: int | None


class ConsentEvaluator(Protocol):
    """The consent service. Raises a retryable ``Fault`` while it is away."""

    async def evaluate(self, inputs: Sequence[bytes]) -> Evaluated:
        """An input is a serialized field of ``EvaluateConsentRequest``."""
        ...


class IdentityResolver(Protocol):
    """The identity service. Raises a retryable ``Fault`` while it is away."""

    async def resolve(self, inputs: Sequence[bytes], tombstones: int | None) -> Sequence[bytes]:
        """One serialized ``ResolvedIdentity`` per input, in order.

        Args:
            inputs: serialized fields of ``ResolveIdentitiesRequest``.
            tombstones: by which consent judged the events.
        """
        ...


class RulesReader(Protocol):
    """The identity service's rules. Raises a retryable ``Fault`` while it is away."""

    async def rules(self, workspace_id: str) -> rules_pb2.IdentityRules:
        """The rules of a workspace, or the defaults."""
        ...


class Publisher(Protocol):
    """The bus."""

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """Returns when all are stored, raises a retryable ``Fault`` when one is not known to be."""
        ...
