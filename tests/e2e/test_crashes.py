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
from cdi_runtime.bus import Bus, connect
from cdi_testing import eventually
from tests.e2e.steps import Endpoint, first_arrivals, flush, loaded

PEOPLE = 20
EVENTS = 1_200
YES = {"consent": {"categoryPreferences": {"advertising": True}}}


class Load:
    """A steady flow of events through the SDK; the SDK sends again what was not answered 200.

    Args:
        client: the SDK.
        prefix: of ids of people and messages.
        after: what stands in COLLECTED up to this sequence is not of this load.
    """

    def __init__(self, client: Client, prefix: str, after: int) -> None:
        self._client = client
        self.prefix = prefix
        self.people = [f"{prefix}p{number}" for number in range(PEOPLE)]
        self.after = after
        self.sent = 0

    async def run(self) -> None:
        """About five seconds."""
        while self.sent < EVENTS:
            for _ in range(EVENTS // 50):
                person, message_id = self.people[self.sent % PEOPLE], f"{self.prefix}{self.sent:06d}"
                self._client.track(None, "Step", {"step": self.sent}, anonymous_id=person, context=YES, message_id=message_id)
                self.sent += 1
            await asyncio.sleep(0.1)
        await flush(self._client)


@pytest.fixture
async def load(suite: Suite, prefix: str, sdk: Callable[[], Client]) -> Load:
    async with connect(suite.nats.url, "test") as bus:
        return Load(sdk(), prefix, await last_collected(bus))


async def last_collected(bus: Bus) -> int:
    """The newest sequence of COLLECTED."""
    return int((await bus.api(f"STREAM.INFO.{StreamName.COLLECTED}"))["state"]["last_seq"])


async def accepted(suite: Suite, load: Load) -> dict[str, list[str]]:
    """Message ids per person in the order in which they were stored. Not always that of sending: when it is told to come again later,
    the SDK puts a batch at the end of its queue."""
    order: dict[str, dict[str, None]] = {}
    async with connect(suite.nats.url, "test") as bus:
        for sequence in range(load.after + 1, await last_collected(bus) + 1):
            stored = await bus.message(StreamName.COLLECTED, sequence)
            if load.prefix.encode() in stored.payload:
                for event in EventBatch.FromString(stored.payload).events:
                    order.setdefault(event.anonymous_id, {})[event.message_id] = None
    return {person: list(messages) for person, messages in order.items()}


async def proven(suite: Suite, shop: Peers, endpoint: Endpoint, load: Load) -> None:
    """Every event is one row, and reached the webhook in the order of its person."""
    await loaded(shop, "step", load.prefix, EVENTS)
    await loaded(shop, "tracks", load.prefix, EVENTS)
    await eventually(lambda: sum(len(first_arrivals(endpoint, person)) for person in load.people) == EVENTS, within=60)
    order = await accepted(suite, load)
    assert {person: first_arrivals(endpoint, person) for person in load.people} == order
    assert sum(map(len, order.values())) == EVENTS


@pytest.mark.parametrize("service", SERVICES)
async def test_kill_9_under_load(service: str, shop: Peers, endpoint: Endpoint, load: Load, suite: Suite) -> None:
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.sent > EVENTS // 3)
    suite.service(service).kill()
    await eventually(lambda: load.sent > EVENTS // 2)
    suite.service(service).start()
    await running
    await proven(suite, shop, endpoint, load)


async def test_sigterm_of_every_service_under_load_drains(shop: Peers, endpoint: Endpoint, load: Load, suite: Suite) -> None:
    running = asyncio.create_task(load.run())
    for service in SERVICES:
        process = suite.service(service)
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0, f"{service} did not drain"
        # In a thread: the webhook answers in this loop, and a request that times out is sent again.
        await asyncio.to_thread(process.start)
    await running
    await proven(suite, shop, endpoint, load)
    repeated = sum(len(endpoint.arrived[person]) for person in load.people) - EVENTS
    assert repeated == 0, "a drained router finishes what it has sent"


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_nats_restarted_under_load(way: str, shop: Peers, endpoint: Endpoint, load: Load, suite: Suite) -> None:
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.sent > EVENTS // 3)
    getattr(suite.nats, way)()
    await eventually(lambda: load.sent > EVENTS // 2)
    suite.nats.start()
    await running
    await proven(suite, shop, endpoint, load)


async def test_the_collector_and_nats_are_killed_in_turn_under_load(shop: Peers, endpoint: Endpoint, load: Load, suite: Suite) -> None:
    """The collector dies while it spools and again while it drains what it spooled."""
    collector = suite.service("collector")
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
    await proven(suite, shop, endpoint, load)
    await eventually(lambda: not spooled(suite))


def spooled(suite: Suite) -> int:
    """Bytes that wait in the collector's spool."""
    with os.scandir(suite.directory / "spool" / "collector") as files, contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in files if file.name.endswith(".spool"))
    return 0
