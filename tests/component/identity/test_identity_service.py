"""Identity as a process over real Postgres and NATS: the answers, and what strange input does to them."""

import json
from pathlib import Path

import grpc
import pytest

from cdi.identity.v1.identity_service_pb2 import GetProfileRequest, ResolveIdentitiesRequest
from cdi_cli.embedded import ServiceProcess
from cdi_cli.traces.receiver import SpanReceiver
from cdi_runtime.bus import Bus
from cdi_testing import eventually
from cdi_testing.plugin import StartService

from .conftest import Client
from .identity_calls import names, profile_of, published, resolve, seen

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_visitor_becomes_known(identity: ServiceProcess, client: Client, bus: Bus) -> None:
    stub = client(identity)
    visit, login = await resolve(stub, seen("anonymous_id:a"), seen("user_id:u", "email:e", traits=b'{"name":"Ada"}'))
    assert visit.created
    assert login.created
    merging = seen("user_id:u", "anonymous_id:a", event_type="identify")
    [identified] = await resolve(stub, merging)
    assert identified.profile_id == visit.profile_id
    assert list(identified.merged_profile_ids) == [login.profile_id]
    for key in ("user_id:u", "email:e", "anonymous_id:a", visit.profile_id, login.profile_id, login.profile_id.upper()):
        profile = await profile_of(stub, key)
        assert profile is not None
        assert profile.profile_id == visit.profile_id
        assert names(profile) == {"user_id:u", "email:e", "anonymous_id:a"}
        assert json.loads(profile.traits) == {"name": "Ada"}
        assert list(profile.merged_profile_ids) == [login.profile_id]
        assert profile.create_time.seconds > 1_700_000_000
    [merge] = await eventually(lambda: published(bus, 1))
    assert merge.canonical_profile_id == visit.profile_id
    assert merge.profile_id == login.profile_id
    assert merge.triggering_event_id == merging.message_id
    assert merge.triggering_event_type == "identify"


async def test_merges_of_merges_and_fresh_profiles_keep_every_id(identity: ServiceProcess, client: Client, bus: Bus) -> None:
    stub = client(identity)
    made = await resolve(stub, *(seen(f"anonymous_id:{name}") for name in "abcd"))
    await resolve(stub, seen("anonymous_id:c", "anonymous_id:d"))
    await resolve(stub, seen("email:x"), seen("email:x", "anonymous_id:b"), seen("anonymous_id:b", "anonymous_id:c"))
    [last] = await resolve(stub, seen("anonymous_id:a", "anonymous_id:d"))
    assert last.profile_id == made[0].profile_id
    for resolution in made:
        profile = await profile_of(stub, resolution.profile_id)
        assert profile is not None
        assert profile.profile_id == made[0].profile_id
        assert len(profile.merged_profile_ids) == 4
    assert len(await eventually(lambda: published(bus, 4))) == 4


async def test_the_protection_example_over_the_wire(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    batch = [seen("user_id:abc123", "email:jane@example1.com"), seen("user_id:abc456", "email:jane@example1.com")]
    jane, other = await resolve(stub, *batch)
    assert jane.profile_id != other.profile_id
    assert other.created
    assert [(item.type, item.value) for item in other.demoted_identifiers] == [("email", "jane@example1.com")]
    again = await resolve(stub, *batch)
    assert [item.profile_id for item in again] == [jane.profile_id, other.profile_id]
    assert not any(item.created or item.merged_profile_ids for item in again)


async def test_batches_of_many_hold_their_order_and_repeat(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    batch = [seen(f"user_id:u{number % 700}", f"anonymous_id:a{number % 700}", workspace=f"w{number % 3}") for number in range(5_000)]
    first = await resolve(stub, *batch)
    again = await resolve(stub, *batch)
    assert [item.profile_id for item in first] == [item.profile_id for item in again]
    assert sum(item.created for item in first) == len({item.profile_id for item in first}) == 2_100


async def test_traits_keep_the_newest_whatever_comes_last_even_over_a_merge(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    await resolve(stub, seen("user_id:u", traits=b'{"plan":"pro","city":"Rome"}', second=20))
    await resolve(
        stub, seen("user_id:u", traits=b'{"plan":"free","age":7}', second=10), seen("anonymous_id:a", traits=b'{"age":8}', second=30)
    )
    await resolve(stub, seen("user_id:u", "anonymous_id:a"))
    profile = await profile_of(stub, "user_id:u")
    assert profile is not None
    assert json.loads(profile.traits) == {"plan": "pro", "city": "Rome", "age": 8}


async def test_strange_input_never_costs_the_batch(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    huge = b'{"huge":' + b"9" * 400 + b',"nul":"a\\u0000b","k\\u0000":1e999}'
    resolutions = await resolve(
        stub,
        seen("user_id:u\0", "email:" + "x" * 501, "anonymous_id:0000", message_id="m1"),
        seen(message_id="m1"),
        seen("user_id:null", message_id="m2"),
        seen('anonymous_id:{"q\\uo",\\}', "email:a,b\n", "anonymous_id:NULL ", "custom:'; --", traits=huge),
        seen("user_id:u", traits=b'{"a":"\xff"'),
        seen("anonymous_id:old", message_id="with\0nul"),
        seen("anonymous_id:old", "user_id:u", message_id="with\0nul"),
    )
    assert all(item.profile_id for item in resolutions)
    assert resolutions[0].profile_id == resolutions[1].profile_id != resolutions[2].profile_id
    assert not resolutions[0].created
    assert await profile_of(stub, resolutions[0].profile_id) is None
    assert await profile_of(stub, "user_id:u\0") is None
    quoted = await profile_of(stub, 'anonymous_id:{"q\\uo",\\}')
    assert quoted is not None
    assert names(quoted) == {'anonymous_id:{"q\\uo",\\}', "email:a,b\n", "anonymous_id:NULL ", "custom:'; --"}
    assert sorted(quoted.traits) == sorted(huge)


@pytest.mark.parametrize("key", ["user_id:nobody", "user_id:", "not-a-uuid", "018f0000-0000-7000-8000-000000000000"])
async def test_who_is_not_there_is_not_found(shared_identity: ServiceProcess, client: Client, key: str) -> None:
    stub = client(shared_identity)
    await resolve(stub, seen("user_id:nobody", workspace="other"))
    assert await profile_of(stub, key) is None


async def test_what_is_no_batch_is_refused(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    for inputs in ([seen("user_id:u")] * 5_001, [seen("user_id:u", workspace="")], [seen("user_id:u", workspace="a\0b")]):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ResolveIdentities(ResolveIdentitiesRequest(inputs=inputs))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await resolve(stub) == []
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await stub.GetProfile(GetProfileRequest(workspace_id="acme"))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_only_a_sampled_event_has_a_span(start_service: StartService, client: Client, tmp_path: Path) -> None:
    receiver = SpanReceiver(tmp_path / "spans")
    receiver.start()
    try:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}", "CDI_TRACE_SAMPLE_RATIO": "0"}
        identity = start_service("identity", environment)
        unsampled = seen("user_id:u", traceparent=SAMPLED[:-1] + "0")
        await resolve(client(identity), seen("user_id:u"), seen("user_id:u", message_id="m1", traceparent=SAMPLED), unsampled)
        identity.stop()
        (span,) = receiver.store.of_message("m1")
    finally:
        receiver.stop()
    assert (span.service, span.name, span.trace_id, span.parent_span_id) == ("identity", "ResolveIdentities", *SAMPLED.split("-")[1:3])
    assert len(receiver.store.of_trace(span.trace_id)) == 1
