"""Watching profiles at real replicas, over a real NATS that goes away and comes back."""

from collections.abc import AsyncIterator

import grpc
import pytest

from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_runtime.bus import Bus
from cdi_testing import eventually

from .identity_calls import names, resolve, seen
from .profile_calls import Watching, announce


@pytest.fixture
async def stub(replicas: tuple[ServiceProcess, ServiceProcess]) -> AsyncIterator[IdentityServiceStub]:
    async with grpc.aio.insecure_channel(replicas[0].grpc) as channel:
        yield IdentityServiceStub(channel)


async def test_every_replica_tells_of_changes_also_after_nats_was_away(
    replicas: tuple[ServiceProcess, ServiceProcess], stub: IdentityServiceStub, watching: Watching, bus: Bus, fresh_nats: NatsServer
) -> None:
    [ada] = await resolve(stub, seen("user_id:ada", traits=b'{"n":1}'))
    by_identifier, by_id, nobody = (
        watching(replicas[0], "user_id:ada"),
        watching(replicas[1], ada.profile_id),
        watching(replicas[1], "user_id:x"),
    )
    await eventually(lambda: by_identifier.traits == by_id.traits == {"n": 1} and nobody.code == "NOT_FOUND")

    await resolve(stub, seen("user_id:ada", traits=b'{"n":2}', second=1))
    await announce(bus, ada.profile_id)
    await eventually(lambda: by_identifier.traits == by_id.traits == {"n": 2})

    [visit] = await resolve(stub, seen("anonymous_id:a"))
    await resolve(stub, seen("user_id:ada", "anonymous_id:a"))
    await announce(bus, visit.profile_id, ada.profile_id)
    merged = {"user_id:ada", "anonymous_id:a"}
    await eventually(lambda: names(by_identifier.told[-1]) == names(by_id.told[-1]) == merged)

    fresh_nats.stop()
    await resolve(stub, seen("user_id:ada", traits=b'{"n":3}', second=2))  # nobody can be told of it
    fresh_nats.start()
    await eventually(lambda: by_identifier.traits == by_id.traits == {"n": 3})
    assert [len(watch.told) for watch in (by_identifier, by_id)] == [4, 4]


async def test_a_replica_that_stops_sends_its_watchers_away_at_once(identity: ServiceProcess, watching: Watching) -> None:
    async with grpc.aio.insecure_channel(identity.grpc) as channel:
        await resolve(IdentityServiceStub(channel), seen("user_id:ada"))
    watch = watching(identity, "user_id:ada")
    await eventually(lambda: watch.told)
    identity.terminate()
    await eventually(lambda: watch.code == "UNAVAILABLE")
