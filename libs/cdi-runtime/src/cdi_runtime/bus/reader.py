"""The batch engine: fetch, decode, handle, bisect, dead-letter, settle, drain. A service adds a function from messages to outcomes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from google.protobuf.message import DecodeError

from cdi.error.v1 import error_pb2
from cdi.event.v1 import rejected_event_pb2
from cdi_kernel.envelope import DEAD_LETTER_SCHEMA, SCHEMA
from cdi_kernel.faults import Fault, Rejected
from cdi_kernel.topology import StreamName, dead, stream
from cdi_runtime.bus.connection import Bus
from cdi_runtime.bus.isolation import StopRule, isolate
from cdi_runtime.bus.membership import Membership
from cdi_runtime.bus.message import Halt, Message, Outcome, Reject, Retry
from cdi_runtime.bus.partition import FeedSpec, Fetched, PartitionFeed
from cdi_runtime.telemetry import instruments, logger

T = TypeVar("T")

Handler = Callable[[Sequence[Message[T]]], Awaitable[Sequence[Outcome]]]
"""One outcome per message, in order. May be given the same message again at any time."""

MAX_BACKOFF_SECONDS: Final = 5.0
"""Longest wait before a batch is handled again; short, because every wait is freshness lost."""

HALT_SECONDS: Final = 30.0
"""How long a halted reader waits before it tries the same batch again: a repaired deploy goes on without anybody's help."""

_BYTES_PER_EVENT: Final = 1024
"""Room for one event when messages are fetched ahead: a partition's share of the next batch, as large as web events are."""

_MIN_FETCH_BYTES: Final = 512 * 1024  # the largest message of the topology
_MAX_FETCH_BYTES: Final = 4 * 1024 * 1024
_REJECTION_WINDOW: Final = 1_000
_METRICS_SECONDS: Final = 5.0
_log = logger(__name__)


class Host(Protocol):
    """What the engine needs of the process that it runs in; ``cdi_runtime.service.ServiceContext`` is one."""

    @property
    def instance(self) -> str:
        """Id of this replica."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Runs a task; its failure ends the process."""
        ...


@dataclass(frozen=True, slots=True)
class ReaderSpec(Generic[T]):
    """What to read and how.

    Attributes:
        service: names the dead letters.
        reader: durable base name; replicas of one reader share its position.
        stream: to read.
        decode: payload → body; a ``DecodeError`` or ``ValueError`` makes the message a dead letter.
        partitions: of the installation; ``None`` for a stream without partitions, which has one consumer over all its subjects.
        lanes: partition ``p`` is handled in lane ``p % lanes``. A lane handles one batch at a time; lanes run concurrently.
        max_events: events in one batch, unless a single message holds more. A batch that has them lingers no more.
        linger_seconds: how long a message may wait for a fuller batch.
        start: where a consumer that does not exist yet begins.
        stop_rule: when rejected messages stop the reader.
        most_now: says how many the next batch may hold, if more than ``max_events`` wait already. What is fetched ahead follows it.
    """

    service: str
    reader: str
    stream: StreamName
    decode: Callable[[bytes], T]
    partitions: int | None
    lanes: int = 8
    max_events: int = 2_000
    linger_seconds: float = 0.0
    start: Literal["all", "new"] = "all"
    stop_rule: StopRule = field(default_factory=lambda: StopRule(max_ratio=0.5, min_rejected=20))
    most_now: Callable[[], int] | None = None


class Reader(Generic[T]):
    """Reads one stream for one service; made by ``reading``."""

    def __init__(self, bus: Bus, spec: ReaderSpec[T], handle: Handler[T], membership: Membership) -> None:
        self.spec = spec
        self._bus = bus
        self._handle = handle
        self._membership = membership
        lanes = min(spec.lanes, spec.partitions or 1)
        self._arrivals = [asyncio.Event() for _ in range(lanes)]
        self._feeds = [self._feed(partition, lanes) for partition in range(spec.partitions or 1)]
        self._stopping = asyncio.Event()
        self._waiting: dict[int, str] = {}
        self._rejections: deque[bool] = deque(maxlen=_REJECTION_WINDOW)
        self._loops: list[asyncio.Task[Any]] = []
        self._lanes: list[asyncio.Task[Any]] = []

    @property
    def owned(self) -> frozenset[int]:
        """Partitions that this replica works on now; the server pins a partition with its first message."""
        return frozenset(feed.partition for feed in self._feeds if feed.owned)

    def ready(self) -> str | None:
        """``None`` while the flow goes on, else what holds it."""
        return next(iter(self._waiting.values()), None)

    async def start(self, host: Host) -> None:
        """Creates the consumers and starts the loops."""
        for feed in self._feeds:
            await feed.ensure(self.spec.start)
        name = self.spec.reader
        loops = {f"{name}-p{feed.partition}": feed.run(partial(self._wants, feed)) for feed in self._feeds}
        loops |= {f"{name}-members": self._membership.run(), f"{name}-metrics": self._report()}
        self._loops = [host.spawn(work, task) for task, work in loops.items()]
        self._lanes = [host.spawn(self._run_lane(lane), f"{name}-lane{lane}") for lane in range(len(self._arrivals))]

    async def drain(self) -> None:
        """Takes nothing new, finishes and settles what is in hand, and gives the partitions to other replicas."""
        self._stopping.set()
        for arrival in self._arrivals:
            arrival.set()
        if self._lanes:
            await asyncio.wait(self._lanes)
        await self._membership.leave()
        for feed in self._feeds:
            feed.stop()
        if self._loops:
            await asyncio.wait(self._loops)
        await asyncio.gather(*(feed.release() for feed in self._feeds))

    def _wants(self, feed: PartitionFeed) -> bool:
        return not self._stopping.is_set() and self._membership.mine(feed.partition)

    def _feed(self, partition: int, lanes: int) -> PartitionFeed:
        subjects = stream(self.spec.stream).subjects
        subject = subjects if self.spec.partitions is None else subjects.replace("*", str(partition))
        of_lane = -(-(self.spec.partitions or 1) // lanes)

        def room(events: int) -> int:
            return min(max(events // of_lane * _BYTES_PER_EVENT, _MIN_FETCH_BYTES), _MAX_FETCH_BYTES)

        usual_bytes = room(self.spec.max_events)
        spec = FeedSpec(self.spec.stream, self.spec.reader, partition, subject, usual_bytes, lambda: room(self._most_events()))
        return PartitionFeed(self._bus, spec, self._arrivals[partition % lanes].set)

    async def _run_lane(self, lane: int) -> None:
        feeds = [feed for feed in self._feeds if feed.partition % len(self._arrivals) == lane]
        arrival = self._arrivals[lane]
        while not self._stopping.is_set():
            await arrival.wait()
            arrival.clear()
            while not self._stopping.is_set() and any(feed.available for feed in feeds):
                if self.spec.linger_seconds:
                    await self._linger(feeds)
                fetched = self._collect(feeds)
                if not fetched:  # a partition that is being given away keeps what it has
                    break
                await self._finish(lane, fetched)

    async def _linger(self, feeds: Sequence[PartitionFeed]) -> None:
        """Waits for a fuller batch, but no message longer than ``linger_seconds`` in all: what came during the last batch has waited."""
        while sum(feed.available_events for feed in feeds) < self.spec.max_events and not self._stopping.is_set():
            oldest_at = min((feed.oldest_at for feed in feeds if feed.available), default=0.0)
            left = oldest_at + self.spec.linger_seconds - asyncio.get_running_loop().time()
            if left <= 0 or any(feed.full for feed in feeds):
                return
            await asyncio.sleep(min(left, 0.02))

    def _collect(self, feeds: Sequence[PartitionFeed]) -> list[Fetched]:
        """A batch over the lane's partitions; each gets an equal share so that none starves. None if they were given away meanwhile."""
        waiting = [feed for feed in feeds if feed.available]
        share = self._most_events() // max(1, len(waiting))
        return [message for feed in waiting for message in feed.take(share)]

    def _most_events(self) -> int:
        return self.spec.max_events if self.spec.most_now is None else self.spec.most_now()

    async def _finish(self, lane: int, fetched: Sequence[Fetched]) -> None:
        """Handles a batch until every message of it is settled; waits, in order, where an outcome says so."""
        attempts = 0
        left = list(fetched)
        while left:
            messages, outcomes = self._decode(left)
            try:
                outcomes |= dict(zip((m.sequence for m in messages), await self._outcomes(messages, attempts), strict=True))
                self._check_rejections(outcomes.values())
            except Halt as halt:
                _log.error("bus.halted", reader=self.spec.reader, rejected=halt.rejected, handled=halt.handled)
                wait, attempts = Retry(HALT_SECONDS, str(halt)), 1
            else:
                left, wait = await self._settle(left, outcomes)
            if not left:
                break
            attempts += 1
            if attempts > 1:
                self._waiting[lane] = f"reader {self.spec.reader} waits: {wait.reason}"
            if await self._pause(wait.after):
                for message in left:
                    message.feed.give_back(1)
                return
        self._waiting.pop(lane, None)

    def _decode(self, fetched: Sequence[Fetched]) -> tuple[list[Message[T]], dict[int, Outcome]]:
        messages: list[Message[T]] = []
        rejected: dict[int, Outcome] = {}
        for raw in fetched:
            try:
                body = self.spec.decode(raw.payload)
            except (DecodeError, ValueError) as error:
                rejected[raw.sequence] = Reject(_undecodable(self.spec.stream, error))
                continue
            messages.append(
                Message(raw.subject, raw.feed.partition, raw.sequence, raw.headers, raw.payload, body, raw.stored_us, raw.deliveries)
            )
        return messages, rejected

    async def _outcomes(self, messages: Sequence[Message[T]], attempts: int) -> Sequence[Outcome]:
        try:
            results = await isolate(messages, self._handle, stage=self.spec.service)
        except Fault as fault:
            after = fault.retry_after if fault.retry_after is not None else min(0.1 * 2**attempts, MAX_BACKOFF_SECONDS)
            _log.warning("bus.retry", reader=self.spec.reader, reason=fault.reason_name, after=after, metadata=dict(fault.metadata))
            return [Retry(after, fault.message)] * len(messages)
        return [Reject(result) if isinstance(result, Fault) else result for result in results]

    def _check_rejections(self, outcomes: Iterable[Outcome]) -> None:
        """Before anything is settled, so that nothing of the batch becomes a dead letter when the stop rule says so."""
        recent = deque(self._rejections, maxlen=_REJECTION_WINDOW)
        recent.extend(isinstance(outcome, Reject) for outcome in outcomes if not isinstance(outcome, Retry))
        self.spec.stop_rule.check(sum(recent), len(recent))
        self._rejections = recent

    async def _settle(self, fetched: Sequence[Fetched], outcomes: dict[int, Outcome]) -> tuple[list[Fetched], Retry]:
        """Settles what can be settled; returns the rest, in order, and how long to wait.

        What stands behind a waiting message of its partition waits too, whatever its own outcome.
        """
        left: list[Fetched] = []
        wait = Retry(0.0, "")
        held: set[int] = set()
        counts = {"done": 0, "retry": 0, "reject": 0}
        for message in fetched:
            outcome = outcomes[message.sequence]
            if isinstance(outcome, Retry) or message.feed.partition in held:
                held.add(message.feed.partition)
                left.append(message)
                counts["retry"] += 1
                if isinstance(outcome, Retry) and outcome.after >= wait.after:
                    wait = outcome
                continue
            if isinstance(outcome, Reject):
                await self._dead_letter(message, outcome.fault)
            counts["reject" if isinstance(outcome, Reject) else "done"] += 1
            await message.feed.settle(message)
        for name, count in counts.items():
            instruments.CONSUMER_SETTLED.add(count, stream=self.spec.stream, reader=self.spec.reader, outcome=name)
        return left, wait

    async def _dead_letter(self, message: Fetched, fault: Fault) -> None:
        """Stores a dead letter, trying until NATS has it: the message is acknowledged only afterwards."""
        letter = rejected_event_pb2.DeadLetter(
            dead_letter_id=f"{self.spec.reader}-{self.spec.stream}-{message.sequence}",
            service=self.spec.service,
            stream=self.spec.stream,
            subject=message.subject,
            sequence=message.sequence,
            reason=fault.reason_name,
            description=fault.message,
            headers=dict(message.headers),
            payload=message.payload,
        )
        letter.dead_time.GetCurrentTime()
        payload = letter.SerializeToString()
        wait = 0.1
        while True:
            try:
                headers = {SCHEMA: DEAD_LETTER_SCHEMA}
                await self._bus.publish(dead(self.spec.service), payload, message_id=f"dead-{letter.dead_letter_id}", headers=headers)
                break
            except Fault as problem:
                if not problem.retryable:
                    raise
                await asyncio.sleep(wait)
                wait = min(wait * 2, MAX_BACKOFF_SECONDS)
        instruments.DEAD_LETTERS.add(1, reader=self.spec.reader, reason=fault.reason_name)
        _log.error("bus.dead_letter", reader=self.spec.reader, sequence=message.sequence, reason=fault.reason_name)

    async def _pause(self, seconds: float) -> bool:
        """Waits; true when the reader is to stop."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _report(self) -> None:
        labels = {"stream": str(self.spec.stream), "reader": self.spec.reader}
        while not await self._pause(_METRICS_SECONDS):
            owned = [feed for feed in self._feeds if feed.owned]
            instruments.PARTITIONS_OWNED.set(len(owned), **labels)
            instruments.CONSUMER_IN_FLIGHT.set(sum(feed.available + feed.in_hand for feed in owned), **labels)
            for feed in owned:
                instruments.CONSUMER_LAG.set(feed.pending, **labels, partition=str(feed.partition))


@asynccontextmanager
async def reading(bus: Bus, spec: ReaderSpec[T], handle: Handler[T], host: Host) -> AsyncIterator[Reader[T]]:
    """Reads while the context is open; leaving it drains.

    Args:
        bus: the connection.
        spec: what to read and how.
        handle: see ``Handler``.
        host: the process.
    """
    reader = Reader(bus, spec, handle, Membership(bus, spec.reader, host.instance))
    try:
        await reader.start(host)
        yield reader
    finally:
        await reader.drain()


def _undecodable(name: StreamName, error: Exception) -> Fault:
    return Rejected(
        error_pb2.ERROR_REASON_UNDECODABLE_MESSAGE,
        f"the payload does not decode: {type(error).__name__}",
        metadata={"stream": str(name)},
    )
