"""Looking into the streams of the bus: what is stored, and where one event stands. Reads only."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cdi.event.v1 import rejected_event_pb2
from cdi_cli.suite import Endpoints
from cdi_kernel.envelope import EVENTS, SOURCE_SEQUENCE
from cdi_kernel.faults import NotFound, Unavailable
from cdi_kernel.topology import StreamName, enriched
from cdi_runtime.bus import Bus, Message, connect

CONNECT_SECONDS: Final = 5.0
"""How long a command waits for the bus; a service would wait for ever."""

_AT_ONCE: Final = 50
_STORED: Final = "Nats-Time-Stamp"


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds.

    Attributes:
        first: sequence of the oldest message; 1 while retention has removed nothing.
        last: sequence of the newest message; 0 while nothing was ever stored.
        messages: how many are stored.
        size_bytes: on disk.
        lag: consumer → messages that it has not settled.
        began: consumer that took only what came after it was made → when that was, RFC 3339.
    """

    first: int
    last: int
    messages: int
    size_bytes: int
    lag: dict[str, int]
    began: dict[str, str]


@asynccontextmanager
async def open_bus(endpoints: Endpoints, command: str) -> AsyncIterator[Bus]:
    """The bus of a running suite for the time of the block.

    Args:
        endpoints: of the suite.
        command: shown by the server's monitoring.

    Raises:
        Unavailable: it did not answer within ``CONNECT_SECONDS``.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                bus = await stack.enter_async_context(connect(endpoints.nats_url, f"cdi-{command}"))
        except TimeoutError:
            raise Unavailable("nats", f"the bus at {endpoints.nats_url} does not answer") from None
        yield bus


async def state_of(bus: Bus, stream: StreamName) -> StreamState:
    """What a stream holds and how far its consumers are.

    Raises:
        NotFound: there is no such stream.
    """
    state = (await bus.api(f"STREAM.INFO.{stream}"))["state"]
    consumers: list[dict[str, Any]] = []
    while True:
        page = await bus.api(f"CONSUMER.LIST.{stream}", {"offset": len(consumers)})
        consumers += page["consumers"] or []
        if len(consumers) >= page["total"] or not page["consumers"]:
            break
    durables = [each for each in consumers if each["config"].get("durable_name")]
    lag = {each["name"]: each["num_pending"] + each["num_ack_pending"] for each in durables}
    began = {each["name"]: each["created"] for each in durables if each["config"]["deliver_policy"] == "new"}
    return StreamState(state["first_seq"], state["last_seq"], state["messages"], state["bytes"], lag, began)


async def stored(bus: Bus, stream: StreamName) -> AsyncIterator[Message[bytes]]:
    """Every stored message, oldest first. For streams that people look at, not for those that events run through."""
    state = await state_of(bus, stream)
    for start in range(state.first, state.last + 1, _AT_ONCE):
        sequences = range(start, min(start + _AT_ONCE, state.last + 1))
        for message in await asyncio.gather(*(_kept(bus, stream, sequence) for sequence in sequences)):
            if message is not None:
                yield message


async def dead_letters(bus: Bus) -> list[rejected_event_pb2.DeadLetter]:
    """The messages that consumers gave up on and that are still kept, oldest first."""
    return [rejected_event_pb2.DeadLetter.FromString(message.payload) async for message in stored(bus, StreamName.DEAD_LETTERS)]


async def events_before(bus: Bus, stream: StreamName, moments: Mapping[str, str]) -> int:
    """Events that were stored before a moment of their subject. Linear in the messages before the last of the moments.

    Args:
        bus: the bus.
        stream: to look through, from its oldest message on.
        moments: subject → RFC 3339; other subjects are passed over.
    """
    limits = {subject: _nanoseconds(moment) for subject, moment in moments.items()}
    last = max(limits.values(), default=0)
    events = 0
    async for message in stored(bus, stream):
        time = _nanoseconds(message.headers[_STORED])
        if time >= last:
            break
        if time < limits.get(message.subject, 0):
            events += int(message.headers.get(EVENTS, "1"))
    return events


async def enriched_of(bus: Bus, partition: int, collected_sequence: int) -> Message[bytes] | None:
    """The ENRICHED message that was made of a COLLECTED one; ``None`` when there is none (yet, or any more).

    ``Cdi-Source-Sequence`` rises within a partition, so a binary search over the stream finds it.
    """
    state = await state_of(bus, StreamName.ENRICHED)
    low, high = state.first, state.last
    while low <= high:
        middle = (low + high) // 2
        found = await _next(bus, StreamName.ENRICHED, enriched(partition), middle)
        if found is None or found[0] > high or found[1] > collected_sequence:
            high = middle - 1
        elif found[1] == collected_sequence:
            return await bus.message(StreamName.ENRICHED, found[0])
        else:
            low = found[0] + 1
    return None


async def _next(bus: Bus, stream: StreamName, subject: str, sequence: int) -> tuple[int, int] | None:
    """Sequence and source sequence of the first message of a subject at or after a sequence."""
    try:
        answer = await bus.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": subject})
    except NotFound:
        return None
    head = base64.b64decode(answer["message"].get("hdrs", "")).decode()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
    return int(answer["message"]["seq"]), int(headers.get(SOURCE_SEQUENCE, "0"))


def _nanoseconds(moment: str) -> int:
    """Unix nanoseconds of an RFC 3339 time in UTC, which may have up to nine decimals."""
    whole, _, decimals = moment.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 1_000_000_000 + int(decimals.ljust(9, "0") or "0")


async def _kept(bus: Bus, stream: StreamName, sequence: int) -> Message[bytes] | None:
    try:
        return await bus.message(stream, sequence)
    except NotFound:
        return None
