"""Group commit on a real NATS server: how many messages the requests of many clients become, and when they leave."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cdi.event.v1 import event_pb2
from cdi_cli.embedded import NatsServer
from cdi_collector.publisher import GroupCommit
from cdi_kernel.envelope import frame
from cdi_kernel.topology import MAX_BATCH_EVENTS, StreamName
from cdi_runtime.bus import Bus, StreamCount, connect

REQUESTS = 20
PACE_SECONDS = 0.04
FRAME = frame(event_pb2.Event(workspace_id="shop", message_id="m").SerializeToString())


@pytest.fixture
async def bus(fresh_nats: NatsServer) -> AsyncIterator[Bus]:
    async with connect(fresh_nats.url, "test") as connected:
        yield connected


async def crowd(commit: GroupCommit) -> None:
    """Two requests at the same time, and their commit under way: what follows at once is part of a crowd."""
    commit.store({0: [FRAME]}, {})
    commit.store({0: [FRAME]}, {})
    await asyncio.sleep(0)


async def stored(bus: Bus) -> StreamCount:
    (count,) = (await bus.count_events(StreamName.COLLECTED)).values()
    return count


async def paced(commit: GroupCommit, events: int) -> None:
    """Requests of some events each, one after the other in the time of two lingers."""
    await crowd(commit)
    receipts = []
    for _ in range(REQUESTS):
        receipts.append(commit.store({0: [FRAME] * events}, {}))
        await asyncio.sleep(PACE_SECONDS)
    await asyncio.gather(*receipts)


async def test_small_requests_wait_for_others_no_longer_than_the_linger(bus: Bus) -> None:
    commit = GroupCommit(bus, REQUESTS * PACE_SECONDS / 2)
    await paced(commit, 1)
    count = await stored(bus)
    assert count.events == 2 + REQUESTS
    assert count.messages >= 3


async def test_large_requests_are_waited_for_as_long_as_they_keep_coming(bus: Bus) -> None:
    commit = GroupCommit(bus, REQUESTS * PACE_SECONDS / 2)
    await paced(commit, 32)
    count = await stored(bus)
    assert count.events == 2 + REQUESTS * 32
    assert count.messages == 2


async def test_a_full_commit_leaves_without_waiting(bus: Bus) -> None:
    commit = GroupCommit(bus, 3_600.0)
    await crowd(commit)
    early = commit.store({0: [FRAME] * (MAX_BATCH_EVENTS - 1)}, {})
    await asyncio.wait([early], timeout=0.05)
    assert not early.done()
    last = commit.store({0: [FRAME]}, {})
    async with asyncio.timeout(10.0):
        await asyncio.gather(early, last)
    assert (await stored(bus)).messages == 2
