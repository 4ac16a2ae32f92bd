"""Publishing on a real NATS server: what is told of messages that are not stored, and connecting later."""

import asyncio

from cdi_cli.embedded import NatsServer
from cdi_kernel.faults import TooLarge, Unavailable
from cdi_kernel.topology import StreamName, collected
from cdi_runtime.bus import Bus, Outgoing, PubAck, connect, dial, listening
from cdi_testing import eventually


def messages(partition: int, *payloads: bytes) -> list[Outgoing]:
    return [Outgoing(collected(partition), payload, f"{partition}-{n}") for n, payload in enumerate(payloads)]


async def stored(bus: Bus) -> dict[str, int]:
    return {subject: found.messages for subject, found in (await bus.count_events(StreamName.COLLECTED)).items()}


async def test_behind_a_message_that_is_not_stored_nothing_of_its_subject_leaves(fresh_nats: NatsServer) -> None:
    async with connect(fresh_nats.url, "test") as bus:
        outcomes = await bus.attempt_all([*messages(0, b"a", bytes(9_000_000), b"c"), *messages(1, b"d", b"e")])
        assert [type(outcome) for outcome in outcomes] == [PubAck, TooLarge, TooLarge, PubAck, PubAck]
        assert await stored(bus) == {collected(0): 1, collected(1): 2}
        assert await bus.attempt_all([]) == []
        fresh_nats.stop()
        outcomes = await bus.attempt_all(messages(0, b"x", b"y"))
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2


async def test_a_bus_may_connect_later(fresh_nats: NatsServer) -> None:
    fresh_nats.stop()
    async with dial(fresh_nats.url, "test") as (bus, opening):
        connecting = asyncio.create_task(opening())
        assert bus.ready() is not None
        assert [type(outcome) for outcome in await bus.attempt_all(messages(0, b"a"))] == [Unavailable]
        fresh_nats.start()
        await eventually(lambda: bus.ready() is None)
        await connecting
        await bus.publish_all(messages(0, b"a"))
        assert await stored(bus) == {collected(0): 1}


async def test_a_bus_that_never_connected_ends(fresh_nats: NatsServer) -> None:
    fresh_nats.stop()
    async with asyncio.timeout(5), dial(fresh_nats.url, "test") as (_, opening):
        connecting = asyncio.create_task(opening())
        await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])


async def test_a_listener_hears_what_is_published_and_is_told_when_it_may_have_missed_some(fresh_nats: NatsServer) -> None:
    heard: list[bytes] = []
    gaps: list[int] = []
    async with connect(fresh_nats.url, "test") as bus, connect(fresh_nats.url, "other") as other:
        async with listening(bus, collected(0), heard.append, lambda: gaps.append(len(heard))):
            assert gaps == [0]
            await other.publish_all([*messages(0, b"a", b"b"), *messages(1, b"x")])
            await eventually(lambda: heard == [b"a", b"b"])
            fresh_nats.restart()
            await eventually(lambda: gaps == [0, 2])
            await eventually(lambda: other.ready() is None)
            await other.publish_all([Outgoing(collected(0), b"c", "0-c")])
            await eventually(lambda: heard == [b"a", b"b", b"c"])
        await other.publish_all([Outgoing(collected(0), b"d", "0-d")])
    assert heard == [b"a", b"b", b"c"]
