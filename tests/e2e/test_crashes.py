"""kill -9, SIGTERM and a broker that goes away, under load: nothing lost, nothing twice, order kept."""

import asyncio
import contextlib
import os
from collections.abc import Callable

import pytest
from segment.analytics import Client

from cdi.event.v1.event_pb2 import EventBatch
from cdi_cli.peers import Peers
from cdi_cli.suite import SERVICES, Suite
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import connect
from cdi_testing import eventually
from tests.e2e.steps import Endpoint, first_arrivals, flush, loaded

PEOPLE = 20
EVENTS = 1_200
YES = {"consent": {"categoryPreferences": {"advertising": True}}}


class Load:
    """A steady flow of events through the SDK; the SDK sends again what was not answered 200."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self.sent = 0

    async def run(self) -> None:
        """About five seconds."""
        while self.sent < EVENTS:
            for _ in range(EVENTS // 50):
                person = f"{self._prefix}p{self.sent % PEOPLE}"
                message_id = f"{self._prefix}{self.sent:06d}"
                self._client.track(None, "Step", {"step": self.sent}, anonymous_id=person, context=YES, message_id=message_id)
                self.sent += 1
            await asyncio.sleep(0.1)
        await flush(self._client)


async def accepted(suite: Suite, prefix: str) -> dict[str, list[str]]:
    """Message ids per person in the order in which they were stored. Not always that of sending: when it is told to come again later,
    the SDK puts a batch at the end of its queue."""
    order: dict[str, dict[str, None]] = {}
    async with connect(suite.nats.url, "test") as bus:
        last = (await bus.api(f"STREAM.INFO.{StreamName.COLLECTED}"))["state"]["last_seq"]
        for sequence in range(1, last + 1):
            stored = await bus.message(StreamName.COLLECTED, sequence)
            if prefix.encode() in stored.payload:
                for event in EventBatch.FromString(stored.payload).events:
                    order.setdefault(event.anonymous_id, {})[event.message_id] = None
    return {person: list(messages) for person, messages in order.items()}


async def proven(suite: Suite, shop: Peers, endpoint: Endpoint, prefix: str) -> None:
    """Every event is one row, and reached the webhook in the order of its person."""
    await loaded(shop, "step", prefix, EVENTS, within=60)
    await loaded(shop, "tracks", prefix, EVENTS)
    people = [f"{prefix}p{number}" for number in range(PEOPLE)]
    await eventually(lambda: sum(len(first_arrivals(endpoint, person)) for person in people) == EVENTS, within=60)
    order = await accepted(suite, prefix)
    assert {person: first_arrivals(endpoint, person) for person in people} == order
    assert sum(map(len, order.values())) == EVENTS


@pytest.mark.parametrize("service", SERVICES)
async def test_kill_9_under_load(
    service: str, shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    load = Load(sdk(), prefix)
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.sent > EVENTS // 3)
    suite.service(service).kill()
    await eventually(lambda: load.sent > EVENTS // 2)
    suite.service(service).start()
    await running
    await proven(suite, shop, endpoint, prefix)


async def test_sigterm_of_every_service_under_load_drains(
    shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    load = Load(sdk(), prefix)
    running = asyncio.create_task(load.run())
    for service in SERVICES:
        process = suite.service(service)
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0, f"{service} did not drain"
        process.start()
    await running
    await proven(suite, shop, endpoint, prefix)
    people = [f"{prefix}p{number}" for number in range(PEOPLE)]
    repeated = sum(len(endpoint.arrived[person]) for person in people) - EVENTS
    assert repeated == 0, "a drained router finishes what it has sent"


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_nats_restarted_under_load(
    way: str, shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    load = Load(sdk(), prefix)
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.sent > EVENTS // 3)
    getattr(suite.nats, way)()
    await eventually(lambda: load.sent > EVENTS // 2)
    suite.nats.start()
    await running
    await proven(suite, shop, endpoint, prefix)


async def test_the_collector_and_nats_are_killed_in_turn_under_load(
    shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    """The collector dies while it spools and again while it drains what it spooled."""
    load, collector = Load(sdk(), prefix), suite.service("collector")
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.sent > EVENTS // 4)
    suite.nats.kill()
    await eventually(lambda: spooled(suite))
    await eventually(lambda: load.sent > EVENTS // 2)
    collector.kill()
    assert spooled(suite)
    collector.start()  # and opens its doors without NATS
    before = spooled(suite)
    await eventually(lambda: spooled(suite) > before or load.sent == EVENTS)
    suite.nats.start()
    collector.kill()
    suite.nats.kill()
    collector.start()
    suite.nats.start()
    await running
    await proven(suite, shop, endpoint, prefix)
    await eventually(lambda: not spooled(suite))


def spooled(suite: Suite) -> int:
    """Bytes that wait in the collector's spool."""
    with os.scandir(suite.directory / "spool" / "collector") as files, contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in files if file.name.endswith(".spool"))
    return 0
