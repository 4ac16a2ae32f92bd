"""One partition of a stream, as one reader's replica sees it: owned or not, and what has been fetched of it.

Exactly one replica: the consumer has a priority group with the policy ``pinned_client``. The server pins the first replica that asks and
gives messages to nobody else until that one is silent for ``PIN_SECONDS`` or is unpinned (NATS ADR-42).

In order, without a gap: whoever becomes the owner may find messages that the last owner fetched and did not settle. The server would
deliver these only after ``ack_wait``, behind newer ones. So a new owner resets the consumer to its acknowledgement floor (ADR-60, server
2.14), and from then on accepts only consecutive delivery sequences; a gap, as after a lost connection, is mended by another reset.

Deliberately absent: redelivery by ``ack_wait`` as a way to anything. It is long, and what it repeats is recognised by its sequence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from cdi_kernel.envelope import EVENTS
from cdi_kernel.faults import NotFound, Unavailable
from cdi_kernel.topology import StreamName, durable
from cdi_runtime.bus.connection import Bus
from cdi_runtime.telemetry import logger

PIN_SECONDS: Final = 5
"""How long the server waits for a silent owner before it pins another replica."""

PULL_SECONDS: Final = 1.5
"""Life of a pull request; renewing it tells the server that the owner lives."""

MAX_FETCHED_MESSAGES: Final = 128
"""Messages fetched and not settled, per partition; an overlapping pull request may bring as many again."""

_MAX_ACK_PENDING: Final = 8 * MAX_FETCHED_MESSAGES
"""The server's limit. Well above ours: the messages that a dead owner left unsettled must not keep the server from giving the new owner
the first message, which is how that learns that it is the owner."""

ACK_WAIT_SECONDS: Final = 60

_GROUP: Final = "owner"
_NANOSECONDS: Final = 1_000_000_000
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message in hand, not yet decoded."""

    feed: PartitionFeed
    subject: str
    sequence: int
    headers: Mapping[str, str]
    payload: bytes
    reply: str
    stored_us: int
    deliveries: int
    events: int
    fetched_at: float


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """What to fetch.

    Attributes:
        stream: to read.
        reader: durable base name.
        partition: of the topology.
        filter_subject: the partition's subject.
        usual_bytes: how many are usually fetched and not taken.
        max_bytes: says how many may be now, no fewer; a larger message comes alone, and an overlapping pull request may bring as many
            again.
    """

    stream: StreamName
    reader: str
    partition: int
    filter_subject: str
    usual_bytes: int
    max_bytes: Callable[[], int]


class PartitionFeed:
    """Fetches one partition while this replica owns it.

    Args:
        bus: the connection.
        spec: what to fetch.
        arrived: called whenever a message can be taken.
    """

    def __init__(self, bus: Bus, spec: FeedSpec, arrived: Callable[[], None]) -> None:
        self.partition = spec.partition
        self.pending = 0
        self._bus = bus
        self._stream = spec.stream
        self._consumer = durable(spec.reader, spec.partition)
        self._filter = spec.filter_subject
        self._usual_bytes = spec.usual_bytes
        self._max_bytes = spec.max_bytes
        self._arrived = arrived
        self._subscription: Subscription | None = None
        self._fetched: deque[Fetched] = deque()
        self._fetched_bytes = 0
        self._pin: str | None = None
        self._expected = 0  # next delivery sequence; 0 while a reset is due or under way
        self._newest = 0  # newest stream sequence taken in under this pin
        self._settled = 0  # newest stream sequence settled under this pin
        self._in_hand = 0
        self._asked = 0  # messages that the newest pull request may still bring
        self._pulled_at = 0.0
        self._reset_at = 0.0
        self._adopted_at = 0.0
        self._too_large = False
        self._leaving = False
        self._stopped = False
        self._repeated: list[str] = []  # acknowledgements that got lost, to be sent again
        self._connection = bus.connections
        self._wake = asyncio.Event()

    @property
    def owned(self) -> bool:
        """Whether the server has pinned this replica."""
        return self._pin is not None

    @property
    def available(self) -> int:
        """Messages that can be taken."""
        return len(self._fetched)

    @property
    def available_events(self) -> int:
        """Events in the messages that can be taken."""
        return sum(message.events for message in self._fetched)

    @property
    def oldest_at(self) -> float:
        """When the first message that can be taken came, by the loop's clock; there must be one."""
        return self._fetched[0].fetched_at

    @property
    def full(self) -> bool:
        """Waiting brings little: more than half of what is usually fetched is there, and ``_pull`` may not ask for the rest."""
        return len(self._fetched) + self._in_hand >= MAX_FETCHED_MESSAGES or self._fetched_bytes > self._usual_bytes // 2

    @property
    def in_hand(self) -> int:
        """Messages taken and not settled."""
        return self._in_hand

    async def ensure(self, start: str) -> None:
        """Creates the durable consumer if it does not exist; an existing one keeps its position.

        Args:
            start: ``"all"`` or ``"new"``, where a consumer that did not exist begins.
        """
        with suppress(NotFound):
            await self._bus.api(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
            return
        config: dict[str, Any] = {
            "durable_name": self._consumer,
            "deliver_policy": start,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_SECONDS * _NANOSECONDS,
            "max_ack_pending": _MAX_ACK_PENDING,
            "max_deliver": -1,
            "filter_subject": self._filter,
            "priority_groups": [_GROUP],
            "priority_policy": "pinned_client",
            "priority_timeout": PIN_SECONDS * _NANOSECONDS,
        }
        request = {"stream_name": self._stream, "config": config, "action": "create"}
        await self._bus.api(f"CONSUMER.CREATE.{self._stream}.{self._consumer}.{self._filter}", request)

    async def run(self, wanted: Callable[[], bool]) -> None:
        """Fetches until ``stop``, whenever ``wanted`` says that this replica should own the partition.

        Ended by a flag, because nats-py swallows the cancellation of a task that is publishing.
        """
        while not self._stopped:
            self._wake.clear()
            try:
                self._leaving = not wanted()
                if self._fetched and not self._leaving:
                    self._arrived()  # also for what was kept while the partition was to be given away
                if self._leaving and self._in_hand == 0:
                    await self.release()
                    await self._rest(0.25)
                    continue
                if self._subscription is None:
                    self._subscription = await self._bus.client.subscribe(self._bus.client.new_inbox(), cb=self._received)
                if self._connection != self._bus.connections:
                    self._connection, self._expected, self._pulled_at = self._bus.connections, 0, 0.0
                if self._pin is not None and self._expected == 0:
                    await self._reset()
                await self._acknowledge_again()
                await self._pull()
                await self._adopt()
            except (Unavailable, NotFound, NatsError) as fault:
                _log.warning("bus.partition_waits", stream=self._stream, consumer=self._consumer, error=type(fault).__name__)
                await self._rest(0.25)
                continue
            await self._rest(PULL_SECONDS / 2)

    def stop(self) -> None:
        """Makes ``run`` return."""
        self._stopped = True
        self._wake.set()

    async def release(self) -> None:
        """Gives the partition to whoever asks next. What was fetched and not taken goes back with it."""
        if self._subscription is None:
            return
        subscription, self._subscription = self._subscription, None
        owned = self._pin is not None
        self._lose()
        with suppress(NatsError):
            await subscription.unsubscribe()
        if owned and self._bus.client.is_connected:
            with suppress(Unavailable, NotFound):
                await self._bus.api(f"CONSUMER.UNPIN.{self._stream}.{self._consumer}", {"group": _GROUP})

    def take(self, max_events: int) -> list[Fetched]:
        """Takes messages in order, at least one if any is there, up to ``max_events`` events."""
        taken: list[Fetched] = []
        events = 0
        while self._fetched and not self._leaving and (not taken or events + self._fetched[0].events <= max_events):
            message = self._fetched.popleft()
            self._fetched_bytes -= len(message.payload)
            if message.sequence <= self._settled:
                self._repeated.append(message.reply)
                continue
            events += message.events
            taken.append(message)
        self._in_hand += len(taken)
        if taken or self._repeated:
            self._wake.set()
        return taken

    async def settle(self, message: Fetched) -> None:
        """Acknowledges a taken message. An acknowledgement that gets lost is repeated when the message comes again."""
        self._in_hand -= 1
        self._settled = max(self._settled, message.sequence)
        with suppress(NatsError):
            await self._bus.client.publish(message.reply, b"+ACK")
        self._wake.set()

    def give_back(self, count: int) -> None:
        """Forgets taken messages without settling them; they come again to the next owner."""
        self._in_hand -= count

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _pull(self) -> None:
        """Asks for what there is room for; also when there is none, in time to keep the pin."""
        now = asyncio.get_running_loop().time()
        room = MAX_FETCHED_MESSAGES - len(self._fetched) - self._in_hand
        most = self._max_bytes()
        space = most - self._fetched_bytes
        if now - self._pulled_at < PULL_SECONDS / 2 and (self._asked * 2 >= room or space < most // 2):
            return
        request: dict[str, Any] = {"batch": max(room, 1), "expires": int(PULL_SECONDS * _NANOSECONDS), "group": _GROUP, "max_bytes": space}
        if room <= 0 or space <= 0:
            request["max_bytes"] = 1  # no message is that small: the request keeps the pin and brings nothing
        elif self._too_large:
            request["batch"] = 1
            del request["max_bytes"]
        self._pulled_at, self._asked, self._too_large = now, max(room, 0), False
        if self._pin is not None:
            request["id"] = self._pin
        assert self._subscription is not None
        await self._bus.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}", orjson.dumps(request), reply=self._subscription.subject
        )

    async def _adopt(self) -> None:
        """Looks, while nobody owns the partition, for messages that a dead owner left unsettled.

        The server pins a replica with the first message that it gives it, and what is left unsettled it gives nobody: without new
        messages the partition would rest until ``ack_wait``. After the reset those messages are the first ones.
        """
        now = asyncio.get_running_loop().time()
        if self._pin is not None or now - self._adopted_at < PIN_SECONDS / 2:
            return
        self._adopted_at = now
        info = await self._bus.api(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        groups = info.get("priority_groups") or [{}]
        if info["num_ack_pending"] and not any(group.get("pinned_client_id") for group in groups):
            await self._bus.api(f"CONSUMER.RESET.{self._stream}.{self._consumer}")

    async def _acknowledge_again(self) -> None:
        repeated, self._repeated = self._repeated, []
        for reply in repeated:
            await self._bus.client.publish(reply, b"+ACK")

    async def _reset(self) -> None:
        """Returns the consumer to its acknowledgement floor and drops what was fetched; the next delivery sequence is 1."""
        self._fetched.clear()
        self._fetched_bytes = 0
        self._newest = self._settled
        # Set first: a pull request that is still open may bring the first message before the answer to the reset.
        self._expected = 1
        self._reset_at, self._asked = asyncio.get_running_loop().time(), 0
        try:
            await self._bus.api(f"CONSUMER.RESET.{self._stream}.{self._consumer}")
        except (Unavailable, NotFound):
            self._expected = 0
            raise

    async def _received(self, message: Msg) -> None:
        if not message.reply.startswith("$JS.ACK."):
            self._status(message)
            return
        headers = message.headers or {}
        tokens = message.reply.split(".")
        at = 4 if len(tokens) == 9 else 6  # after the consumer's name; the longer form holds domain and account
        deliveries, sequence, delivery, stored, self.pending = (int(token) for token in tokens[at : at + 5])
        pin = headers.get("Nats-Pin-Id")
        if pin != self._pin:
            self._lose()
            self._pin = pin
            self._expected = 1 if delivery == 1 else 0
            self._reset_at = asyncio.get_running_loop().time()
            self._wake.set()
            _log.info("bus.partition_owned", stream=self._stream, consumer=self._consumer)
        self._asked -= 1
        if delivery != self._expected:
            # Just after a reset these are stragglers from before it; later, or anywhere else, they mean that one got lost.
            if self._expected != 1 or asyncio.get_running_loop().time() - self._reset_at > PULL_SECONDS:
                self._expected = 0
                self._wake.set()
            return
        self._expected += 1
        if sequence <= self._newest:
            if sequence <= self._settled:
                self._repeated.append(message.reply)
            return
        self._newest = sequence
        events, now = int(headers.get(EVENTS, "1")), asyncio.get_running_loop().time()
        self._fetched.append(
            Fetched(self, message.subject, sequence, headers, message.data, message.reply, stored // 1_000, deliveries, events, now)
        )
        self._fetched_bytes += len(message.data)
        self._arrived()

    def _status(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status", "")
        if status == "423":  # another replica is pinned
            self._lose()
        elif status == "409" and "MaxBytes" in (message.headers or {}).get("Description", ""):
            self._asked = 0
            # Nothing of what was asked for came: the next message alone is larger than what may be fetched.
            self._too_large = not self._fetched and not self._in_hand
            if self._too_large:
                self._pulled_at = 0.0
                self._wake.set()

    def _lose(self) -> None:
        """The partition belongs to someone else, or to this replica anew."""
        if self._pin is not None:
            _log.info("bus.partition_lost", stream=self._stream, consumer=self._consumer)
        self._pin = None
        self._expected = 0
        self._settled = 0
        self._newest = 0
        self._fetched.clear()
        self._fetched_bytes = 0
