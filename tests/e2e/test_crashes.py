"""kill -9, SIGTERM and a broker that goes away, under load: nothing lost, nothing twice, order kept."""

import asyncio
from collections.abc import Callable

import pytest
from segment.analytics import Client

from cdi_cli.peers import Peers
from cdi_cli.suite import SERVICES, Suite
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


async def proven(shop: Peers, endpoint: Endpoint, prefix: str) -> None:
    """Every event is one row, and reached the webhook in the order of its person."""
    await loaded(shop, "step", prefix, EVENTS, within=60)
    await loaded(shop, "tracks", prefix, EVENTS)
    people = [f"{prefix}p{number}" for number in range(PEOPLE)]
    await eventually(lambda: sum(len(first_arrivals(endpoint, person)) for person in people) == EVENTS, within=60)
    for number, person in enumerate(people):
        assert first_arrivals(endpoint, person) == [f"{prefix}{event:06d}" for event in range(number, EVENTS, PEOPLE)]


@pytest.mark.timeout(180)
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
    await proven(shop, endpoint, prefix)


@pytest.mark.timeout(180)
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
    await proven(shop, endpoint, prefix)
    people = [f"{prefix}p{number}" for number in range(PEOPLE)]
    repeated = sum(len(endpoint.arrived[person]) for person in people) - EVENTS
    assert repeated == 0, "a drained router finishes what it has sent"


@pytest.mark.timeout(180)
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
    await proven(shop, endpoint, prefix)
