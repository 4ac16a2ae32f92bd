"""What the router needs of the outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cdi.consent.v1.privacy_pb2 import PrivacyStep
from cdi.event.v1.event_pb2 import Event
from cdi_router.domain.answer import Answer
from cdi_router.domain.deletion import Deletion, Forgotten
from cdi_router.domain.delivery import Barrier, Delivery, Progress, Settlement
from cdi_router.domain.destination import Destination

Subject = tuple[str, str, str, str, int]
"""Whom consent is asked about: workspace, user id, anonymous id, the region by whose default policies the event was judged, and when it was
received (microseconds since 1970): what was received before a person's erasure is suppressed."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What somebody allows now: the purposes, and the decisions of the ledger that this rests on; or nothing, whatever they say."""

    purposes: frozenset[str]
    decision_ids: tuple[str, ...] = ()
    suppressed: bool = False


class Clock(Protocol):
    """Time and chance, so that the rest needs neither."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        ...

    def chance(self) -> float:
        """A random number, 0 ≤ chance < 1."""
        ...


class Endpoint(Protocol):
    """The client of one destination."""

    @property
    def max_batch_events(self) -> int:
        """Events that one request may hold."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at once per partition."""
        ...

    def compose(self, events: Sequence[Event]) -> bytes:
        """The body of a request. Total: no event makes it fail."""
        ...

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Sends one request. Never raises for what the network or the destination does: that is an answer."""
        ...


class Deleter(Protocol):
    """Tells one destination to delete people."""

    def calls(self, person: Forgotten) -> int:
        """How many calls that takes."""
        ...

    async def delete(self, person: Forgotten, number: int) -> Answer:
        """Makes one of them, from 0. Never raises for what the network or the destination does: that is an answer."""
        ...


class Deleting(Protocol):
    """Opens the ``Deleter`` of one destination; ``None``: its document does not say how it is told."""

    def __call__(self, destination: Destination, environment: Mapping[str, str]) -> AbstractAsyncContextManager[Deleter | None]:
        """Raises ``FailedPrecondition`` for a reference that the environment does not have."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the router has to do, and has done, of a privacy order with calls to destinations.

    Attributes:
        person: whom; its attempt is that of the calls.
        attempt: the newest telling: what is reported.
        steps: of the other stores, as they ended.
        destination_ids: who is told to delete.
    """

    person: Forgotten
    attempt: int
    steps: Sequence[PrivacyStep]
    destination_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Standings:
    """What is to be reported of an order now.

    Attributes:
        request_id: the request.
        attempt: the newest telling.
        steps: of all stores, ended or not: a report is never a part of one.
        ended: destinations that have ended.
    """

    request_id: str
    attempt: int
    steps: Sequence[PrivacyStep]
    ended: Sequence[int]


class DeletionStore(Protocol):
    """The delete calls that are still to be made. Each method is one transaction; raises ``StoreUnavailable`` when the database is away."""

    async def add(self, told: Sequence[Told], now: datetime) -> None:
        """Keeps orders. One that is there and not done goes on at once under its newest telling; one that is done begins anew."""
        ...

    async def due(self, now: datetime) -> Sequence[int]:
        """The destinations with something to do or to report."""
        ...

    async def claim(self, destination_id: int, now: datetime, until: datetime, limit: int) -> Sequence[Deletion]:
        """What is due of a destination, the most overdue first. Nobody else is given it until then, unless it is settled before."""
        ...

    async def settle(self, deletions: Sequence[Deletion], now: datetime) -> None:
        """Stores how far they are. What has ended keeps no id of the person and is due until ``reported``."""
        ...

    async def standings(self, request_ids: Sequence[str]) -> Sequence[Standings]:
        """What is to be reported of these requests."""
        ...

    async def reported(self, standings: Sequence[Standings]) -> None:
        """These were reported; an order that is done is forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom stored deliveries are compared with.

    Attributes:
        workspace_id: the workspace.
        ids: type and value of all ids, profile ids as ``profile_id``.
        before_us: events received until then, microseconds since 1970.
    """

    workspace_id: str
    ids: frozenset[tuple[str, str]]
    before_us: int


class PersonStore(Protocol):
    """The stored deliveries of people. Raises ``StoreUnavailable`` when the database is away."""

    async def erase(self, owners: Sequence[Owner]) -> Sequence[Mapping[str, int]]:
        """Deletes waiting and given-up deliveries; waiting ones count as suppressed from then on. Per owner the rows by table."""
        ...

    def held(self, owner: Owner) -> AsyncIterator[tuple[str, Sequence[Event]]]:
        """Stored events of a person, by table, in pieces."""
        ...


class Consent(Protocol):
    """What people agree to now."""

    async def allowed(self, subjects: Sequence[Subject]) -> Mapping[Subject, Allowed]:
        """What is allowed now, per subject.

        Raises:
            Fault: consent does not answer (retryable) or refuses.
        """
        ...


class PurposeReader(Protocol):
    """Which purposes destinations need, as the purposes themselves say it."""

    async def needed(self, workspace_id: str) -> Mapping[str, tuple[str, ...]]:
        """Destination → the purposes that name it, sorted. Raises a retryable ``Fault`` while consent is away."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a partition of a destination stands: its progress and the people whose events wait."""

    progress: Progress
    barred: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Queue:
    """The waiting events of one person, earliest first. Only the first one when the barrier says ``alone``."""

    barrier: Barrier
    deliveries: Sequence[Delivery]


class DeliveryStore(Protocol):
    """What is kept of deliveries. Every method is one transaction and raises ``StoreUnavailable`` when the database is away."""

    async def standing(self, destination_id: int, partition: int) -> Standing:
        """Where the partition stands. True until the next ``settle`` of the same partition: only that adds to those who wait."""
        ...

    async def settle(self, destination_id: int, partition: int, before: Progress, after: Progress, settlement: Settlement) -> bool:
        """Stores what became of new events, and the progress.

        Returns:
            False, and nothing is stored, when the progress is not ``before`` any more: somebody else worked on the partition.
        """
        ...

    async def due(self, destination_id: int, partitions: Sequence[int], now: datetime) -> Sequence[int]:
        """Those of the partitions in which a retry is due."""
        ...

    async def queues(self, destination_id: int, partition: int, now: datetime, *, people: int, events: int) -> Sequence[Queue]:
        """Whose retry is due, the most overdue first.

        Args:
            destination_id: the destination.
            partition: the partition.
            now: the time.
            people: at most so many.
            events: of one person, at most so many.
        """
        ...

    async def settle_parked(
        self, destination_id: int, partition: int, now: datetime, settlement: Settlement, freed: Sequence[bytes]
    ) -> None:
        """Stores what became of waiting events. What somebody else settled meanwhile is not counted twice.

        Args:
            destination_id: the destination.
            partition: the partition.
            now: when the next event of those who got on is due.
            settlement: ``parked`` is empty; ``barriers`` are the new states of those who failed.
            freed: people whose earliest event succeeded: what is left of theirs may go at full speed.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeadRow:
    """A delivery that was given up."""

    delivery_id: str
    destination: str
    message_id: str
    reason: str
    response_status: int
    response_body: str
    attempts: int
    first_attempt_time: datetime
    dead_time: datetime
    request_body: bytes


@dataclass(frozen=True, slots=True)
class Count:
    """So many events of a destination had this outcome (``cdi.event.v1.Outcome``)."""

    destination: str
    outcome: int
    reason: str
    events: int
