"""The connection to NATS: streams, publishing, and reading single messages. The only place, with its neighbours, that imports ``nats``."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from cdi.error.v1 import error_pb2
from cdi_kernel.envelope import EVENTS
from cdi_kernel.faults import Fault, NotFound, Unavailable
from cdi_kernel.topology import DUPLICATE_WINDOW_SECONDS, STREAMS, StreamName, StreamSpec, durable
from cdi_runtime.bus.message import Message, Outgoing, PubAck, StreamCount, partition_in
from cdi_runtime.bus.publisher import Publisher
from cdi_runtime.bus.walking import walk
from cdi_runtime.telemetry import logger

API_DEADLINE_SECONDS: Final = 5.0
"""How long a request to JetStream's API may take."""

_NANOSECONDS: Final = 1_000_000_000
_PENDING_BYTES: Final = 32 * 1024 * 1024
_RECONNECT_SECONDS: Any = 0.1  # nats-py types it as int and takes a float
_STREAM_EXISTS: Final = 10058
_ERROR_LOG_SECONDS: Final = 30.0  # between two lines of one outage: every attempt to reconnect is an error, ten a second
_log = logger(__name__)


class Bus:
    """One connection, shared by everything in a process. Made by ``connect`` or ``dial``."""

    def __init__(self, client: Client, publisher: Publisher) -> None:
        self.client = client
        self.opened = False
        """Whether the first connection was made and the streams were there."""
        self.connections = 1
        """Rises with every reconnect: what was in hand before may have been given to someone else."""
        self.on_reconnect: set[Callable[[], None]] = set()
        """Called when the connection is back and the server knows all subscriptions again."""
        self._publisher = publisher

    def ready(self) -> str | None:
        """``None`` while connected, else why not."""
        return None if self.opened and self.client.is_connected else "no connection to NATS"

    async def publish(self, subject: str, payload: bytes, *, message_id: str, headers: Mapping[str, str] | None = None) -> PubAck:
        """Publishes one message and waits until it is stored.

        Raises:
            Unavailable: it is not known to be stored; publishing it again with the same id is safe.
            TooLarge: it is over the server's limit.
        """
        return await (await self._publisher.send(Outgoing(subject, payload, message_id, headers or {})))

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        """Publishes messages, in order for each subject, and waits until all are stored.

        Raises:
            Unavailable: at least one is not known to be stored; publishing all again with the same ids is safe.
            TooLarge: one is over the server's limit.
        """
        acknowledged: list[PubAck] = []
        for outcome in await self.attempt_all(messages):
            if isinstance(outcome, Fault):
                raise outcome
            acknowledged.append(outcome)
        return acknowledged

    async def attempt_all(self, messages: Sequence[Outgoing]) -> list[PubAck | Fault]:
        """See ``Publisher.attempt_all``."""
        return await self._publisher.attempt_all(messages)

    async def message(self, name: StreamName, sequence: int) -> Message[bytes]:
        """One stored message.

        Raises:
            NotFound: the stream does not hold it (any more).
            Unavailable: NATS is away.
        """
        try:
            answer = await self.client.request(
                f"$JS.API.DIRECT.GET.{name}", json.dumps({"seq": sequence}).encode(), timeout=API_DEADLINE_SECONDS
            )
        except NatsError as error:
            raise Unavailable("nats", f"reading a message failed: {type(error).__name__}") from error
        headers = dict(answer.headers or {})
        if "Nats-Sequence" not in headers:
            where = {"resource": "message", "name": f"{name}/{sequence}"}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "the stream does not hold this message", metadata=where)
        subject = headers["Nats-Subject"]
        return Message(subject, partition_in(subject), sequence, headers, answer.data, answer.data, 0, 1)

    async def count_events(self, name: StreamName) -> dict[str, StreamCount]:
        """Messages and events per subject of a stream, by reading headers only. For the audit; linear in the number of messages."""
        counts: dict[str, StreamCount] = defaultdict(StreamCount)
        async for message in walk(self, name, headers_only=True):
            seen = counts[message.subject]
            events = int((message.headers or {}).get(EVENTS, "1"))
            counts[message.subject] = StreamCount(seen.messages + 1, seen.events + events)
        return dict(counts)

    async def stored(self, name: StreamName) -> AsyncIterator[bytes]:
        """What all messages hold that are in a stream now, in order."""
        async for message in walk(self, name, headers_only=False):
            yield message.data

    async def tail(self, subject: str) -> AsyncIterator[Message[bytes]]:
        """Messages published from now on, while the caller listens. Not durable: a slow listener misses some."""
        subscription = await self.client.subscribe(subject)
        try:
            async for message in subscription.messages:
                headers = dict(message.headers or {})
                yield Message(message.subject, partition_in(message.subject), 0, headers, message.data, message.data, 0, 1)
        finally:
            await subscription.unsubscribe()

    async def lag(self, name: StreamName, reader: str, partition: int) -> int:
        """Messages of a partition that a reader has not settled. 0 for a reader that does not exist."""
        try:
            info = await self.api(f"CONSUMER.INFO.{name}.{durable(reader, partition)}")
        except NotFound:
            return 0
        return int(info["num_pending"]) + int(info["num_ack_pending"])

    async def last_sequence(self, name: StreamName) -> int:
        """The sequence of the newest message of a stream; 0 while nothing was ever stored."""
        return int((await self.api(f"STREAM.INFO.{name}"))["state"]["last_seq"])

    async def settled(self, name: StreamName, reader: str, partition: int, sequence: int) -> bool:
        """Whether a reader has settled all messages of a partition up to a sequence that the stream has reached.

        Raises:
            NotFound: there is no such reader.
        """
        info = await self.api(f"CONSUMER.INFO.{name}.{durable(reader, partition)}")
        return int(info["ack_floor"]["stream_seq"]) >= sequence or int(info["num_pending"]) + int(info["num_ack_pending"]) == 0

    async def api(self, operation: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A request to JetStream's API, raw because nats-py has no fields for priority groups.

        Raises:
            NotFound: the stream or consumer does not exist.
            Unavailable: no answer, or a refusal that may pass.
        """
        try:
            payload = json.dumps(request).encode() if request is not None else b""
            message = await self.client.request(f"$JS.API.{operation}", payload, timeout=API_DEADLINE_SECONDS)
        except NatsError as error:
            raise Unavailable("nats", f"JetStream did not answer {operation.split('.')[0:2]}: {type(error).__name__}") from error
        answer: dict[str, Any] = json.loads(message.data)
        if (refusal := answer.get("error")) is None:
            return answer
        if refusal.get("code") == 404:
            where = {"resource": "jetstream", "name": operation}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "JetStream does not know it", metadata=where)
        raise JetStreamRefusal(refusal.get("err_code", 0), refusal.get("description", ""))

    async def ensure_streams(self, replicas: int) -> None:
        """Creates the streams of the topology that do not exist. An existing one is left as the operator made it."""
        for spec in STREAMS:
            try:
                await self.api(f"STREAM.CREATE.{spec.name}", _stream_config(spec, replicas))
            except JetStreamRefusal as refusal:
                if refusal.error_code != _STREAM_EXISTS:
                    raise


class JetStreamRefusal(Unavailable):
    """JetStream said no.

    Attributes:
        error_code: JetStream's own number.
    """

    def __init__(self, error_code: int, description: str) -> None:
        super().__init__("nats", f"JetStream refused ({error_code}): {description}")
        self.error_code = error_code


@asynccontextmanager
async def connect(url: str, name: str, *, replicas: int = 1) -> AsyncIterator[Bus]:
    """Connects, waiting with backoff until NATS answers, and creates the missing streams.

    Args:
        url: one or more addresses, separated by commas.
        name: shown by the server's monitoring.
        replicas: of a stream that is created here; 3 in production.
    """
    async with dial(url, name, replicas=replicas) as (bus, opening):
        await opening()
        yield bus


@asynccontextmanager
async def dial(url: str, name: str, *, replicas: int = 1) -> AsyncIterator[tuple[Bus, Callable[[], Coroutine[Any, Any, None]]]]:
    """A bus that is not connected yet, and what connects it as ``connect`` does.

    For a service that can do without NATS for a while: it runs the second part under supervision, and until that returns the bus is
    not ready. Its end closes the connection.
    """
    client = Client()
    publisher = Publisher(client)
    bus = Bus(client, publisher)
    logged, suppressed = -math.inf, 0

    async def reconnected() -> None:
        nonlocal logged, suppressed
        bus.connections += 1
        for told in tuple(bus.on_reconnect):
            told()
        _log.info("bus.reconnected", errors_suppressed=suppressed)
        logged, suppressed = -math.inf, 0

    async def disconnected() -> None:
        publisher.disconnected()
        _log.warning("bus.disconnected")

    async def failed(error: Exception) -> None:
        nonlocal logged, suppressed
        if (now := asyncio.get_running_loop().time()) - logged < _ERROR_LOG_SECONDS:
            suppressed += 1
            return
        _log.warning("bus.error", error=type(error).__name__, suppressed=suppressed)
        logged, suppressed = now, 0

    async def opening() -> None:
        wait = 0.05
        while not bus.opened:
            try:
                await client.connect(
                    servers=url.split(","),
                    name=name,
                    connect_timeout=2,
                    reconnect_time_wait=_RECONNECT_SECONDS,
                    max_reconnect_attempts=-1,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    allow_reconnect=True,
                    reconnected_cb=reconnected,
                    disconnected_cb=disconnected,
                    error_cb=failed,
                )
                await publisher.start()
                await bus.ensure_streams(replicas)
                bus.opened = True
            except (NatsError, OSError, TimeoutError, Unavailable) as error:
                _log.warning("bus.waiting", error=type(error).__name__)
                await client.close()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)

    try:
        yield bus, opening
    finally:
        await client.close()


def _stream_config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "subjects": [spec.subjects],
        "storage": "file",
        "compression": "s2",
        "retention": "limits",
        "discard": "old",
        "max_age": spec.max_age_seconds * _NANOSECONDS,
        "duplicate_window": DUPLICATE_WINDOW_SECONDS * _NANOSECONDS,
        "num_replicas": replicas,
        "allow_direct": True,
    }
