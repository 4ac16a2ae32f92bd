"""The bus with a spool in front, without the collector around it: which way messages take, and in which order they are stored."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from cdi_cli.embedded import NatsServer
from cdi_collector.spool.bus import SpoolingBus
from cdi_collector.spool.log import Spool, spooled
from cdi_kernel.envelope import EVENTS
from cdi_kernel.topology import StreamName, collected
from cdi_runtime.bus import Bus, Outgoing, connect
from cdi_testing import eventually


@asynccontextmanager
async def spooling(nats: NatsServer, directory: Path) -> AsyncIterator[tuple[SpoolingBus, Spool, Bus]]:
    async with connect(nats.url, "test") as bus, spooled(directory, 64 * 1024 * 1024, 64 * 1024) as spool:
        outlet = SpoolingBus(bus, spool)
        draining = asyncio.create_task(outlet.run())
        yield outlet, spool, bus
        assert not draining.done()
        draining.cancel()
        await asyncio.wait([draining])


PAUSE_SECONDS = 0.001
"""About what a disk takes for a flush: a spool in memory would take more messages than a test can read again."""


class Writers:
    """Each publishes to a subject of its own, the next message right after the last one is durable."""

    def __init__(self, outlet: SpoolingBus, number: int, size: int) -> None:
        self._outlet = outlet
        self._size = size
        self._going = True
        self.written = [0] * number
        self._tasks = [asyncio.create_task(self._write(writer)) for writer in range(number)]

    async def more(self, number: int = 200) -> None:
        before = sum(self.written)
        await eventually(lambda: sum(self.written) > before + number)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        while self._going:
            number = self.written[writer]
            payload = f"{number}-".encode().ljust(self._size, b"x")
            await self._outlet.publish_all([Outgoing(collected(writer), payload, f"{writer}-{number}", {EVENTS: "1"})])
            self.written[writer] += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def numbers(bus: Bus) -> dict[str, list[int]]:
    """What is stored, by subject, in order."""
    found: dict[str, list[int]] = {}
    counts = await bus.count_events(StreamName.COLLECTED)
    for sequence in range(1, 1 + sum(count.messages for count in counts.values())):
        message = await bus.message(StreamName.COLLECTED, sequence)
        found.setdefault(message.subject, []).append(int(message.payload.partition(b"-")[0]))
    return found


@pytest.mark.parametrize(("number", "size"), [(4, 10), (4, 20_000)], ids=["small", "large"])
async def test_it_returns_to_jetstream_although_messages_never_stop_coming(
    fresh_nats: NatsServer, tmp_path: Path, number: int, size: int
) -> None:
    async with spooling(fresh_nats, tmp_path) as (outlet, spool, bus):
        async with Writers(outlet, number, size) as writers:
            for _ in range(2):
                await writers.more()
                fresh_nats.stop()
                await writers.more()
                assert not spool.empty
                fresh_nats.start()
                await eventually(lambda: spool.empty and bus.ready() is None)
                await writers.more()
                assert spool.empty, "they go to JetStream again"
        assert await numbers(bus) == {collected(writer): list(range(count)) for writer, count in enumerate(writers.written)}


async def test_callers_that_do_not_wait_for_each_other_do_not_keep_it_from_jetstream(fresh_nats: NatsServer, tmp_path: Path) -> None:
    calls: list[asyncio.Task[None]] = []

    async def call(outlet: SpoolingBus) -> None:
        while True:
            message = Outgoing(collected(len(calls)), b"0-", str(len(calls)), {EVENTS: "1"})
            calls.append(asyncio.create_task(outlet.publish_all([message])))
            await asyncio.sleep(0.0005)

    async with spooling(fresh_nats, tmp_path) as (outlet, spool, bus):
        fresh_nats.stop()
        calling = asyncio.create_task(call(outlet))
        await eventually(lambda: len(calls) > 200)
        fresh_nats.start()
        await eventually(lambda: spool.empty)
        calling.cancel()
        await asyncio.gather(*calls)
        assert len(await numbers(bus)) == len(calls)


async def test_a_nats_that_hangs_is_like_one_that_is_away(fresh_nats: NatsServer, tmp_path: Path) -> None:
    async with spooling(fresh_nats, tmp_path) as (outlet, spool, bus):
        async with Writers(outlet, 4, 1_000) as writers:
            await writers.more()
            fresh_nats.process.send(signal.SIGSTOP)
            try:
                await eventually(lambda: not spool.empty)
                await writers.more()
                assert outlet.ready() is None
            finally:
                fresh_nats.process.send(signal.SIGCONT)
            await eventually(lambda: spool.empty and bus.ready() is None)
        assert await numbers(bus) == {collected(writer): list(range(count)) for writer, count in enumerate(writers.written)}
