"""Reading profiles of a real identity process: batches, lists, links."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest

from cdi.identity.v1 import profiles_service_pb2 as pb
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_testing.builders import EVENT_TIME, WORKSPACE

from .identity_calls import names, profile_of, resolve, seen
from .profile_calls import batch, code_of, key, listed

Stubs = tuple[IdentityServiceStub, ProfilesServiceStub]


@pytest.fixture
async def stubs(shared_identity: ServiceProcess) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(shared_identity.grpc, options=[("grpc.max_receive_message_length", 1 << 24)]) as channel:
        yield IdentityServiceStub(channel), ProfilesServiceStub(channel)


async def test_a_batch_keeps_its_order_and_leaves_nobody_empty(stubs: Stubs) -> None:
    identity, profiles = stubs
    visit, ada, bob, _ = await resolve(
        identity,
        seen("anonymous_id:a"),
        seen("user_id:ada", "email:ada@x", traits=b'{"plan":"pro","city":"Rome"}', second=5),
        seen("user_id:bob"),
        seen("user_id:else", workspace="other"),
    )
    await resolve(identity, seen("user_id:ada", "anonymous_id:a"))
    nobody = ["user_id:nobody", "not-a-uuid", "user_id:null", "user_id:else", "018f0000-0000-7000-8000-000000000000"]
    asked = ["user_id:bob", *nobody, "email:ada@x", ada.profile_id.upper(), "anonymous_id:a", visit.profile_id, "user_id:bob"]
    found = await batch(profiles, *asked)
    assert [item.profile.profile_id for item in found] == [bob.profile_id, *[""] * 5, *[visit.profile_id] * 4, bob.profile_id]
    assert [item.HasField("profile") for item in found[1:6]] == [False] * 5
    merged = found[6].profile
    assert names(merged) == {"user_id:ada", "email:ada@x", "anonymous_id:a"}
    assert list(merged.merged_profile_ids) == [ada.profile_id]
    assert json.loads(merged.traits) == {"plan": "pro", "city": "Rome"}
    assert merged.create_time.seconds > 1_700_000_000
    assert not found[6].provenance
    assert await batch(profiles) == []


async def test_a_thousand_keys_and_no_more(stubs: Stubs) -> None:
    identity, profiles = stubs
    made = await resolve(identity, *(seen(f"user_id:u{number}") for number in range(999)))
    found = await batch(profiles, *(f"user_id:u{998 - number}" for number in range(1_000)))
    assert [item.profile.profile_id for item in found] == [*reversed([item.profile_id for item in made]), ""]
    assert await code_of(batch(profiles, *["user_id:u0"] * 1_001)) == "INVALID_ARGUMENT"


async def test_only_the_wanted_traits_with_where_they_come_from(stubs: Stubs) -> None:
    identity, profiles = stubs
    await resolve(identity, seen("user_id:ada", traits=b'{"plan":"free","city":"Rome","age":7}', message_id="m0"))
    await resolve(identity, seen("anonymous_id:a", traits=b'{"plan":{"name":"pro"}}', second=9, message_id="m9"))
    await resolve(identity, seen("anonymous_id:a", "user_id:ada"))
    [found] = await batch(profiles, "user_id:ada", trait_names=["plan", "age", "unknown"], include_provenance=True)
    assert json.loads(found.profile.traits) == {"plan": {"name": "pro"}, "age": 7}
    came = [(item.name, item.value, item.event_time.seconds - int(EVENT_TIME.timestamp()), item.message_id) for item in found.provenance]
    assert came == [("age", b"7", 0, "m0"), ("plan", b'{"name":"pro"}', 9, "m9")]


async def test_what_is_too_large_for_one_answer_is_asked_for_in_parts(stubs: Stubs) -> None:
    identity, profiles = stubs
    traits = json.dumps({f"t{number}": "x" * 8_000 for number in range(480)}).encode()
    for name in "abc":
        await resolve(identity, seen(f"user_id:{name}", traits=traits))
    for keys in (["user_id:a", "user_id:b"], ["user_id:a", "user_id:a"]):
        assert await code_of(batch(profiles, *keys)) == "OUT_OF_RANGE"
    [large, _] = await batch(profiles, "user_id:a", "user_id:nobody", include_provenance=True)
    assert len(large.profile.traits) > 3_500_000
    assert [len(page) for page in await listed(profiles, WORKSPACE, 100)] == [1, 1, 1]
    await resolve(identity, *(seen("anonymous_id:z", f"custom{number}:{'y' * 490}") for number in range(900)))
    assert await code_of(batch(profiles, *["anonymous_id:z"] * 20)) == "OUT_OF_RANGE"


async def test_many_who_ask_at_once_all_get_their_own_answer(stubs: Stubs) -> None:
    """Also those who ask with what is too large for one answer of many, and those who leave."""
    identity, _ = stubs
    people = await resolve(identity, *(seen(f"user_id:u{number}", f"email:{number}@x.y") for number in range(40)))
    [elsewhere] = await resolve(identity, seen("user_id:u0", workspace="other"))
    traits = json.dumps({f"t{number}": "x" * 8_000 for number in range(480)}).encode()
    large = [(await resolve(identity, seen(f"user_id:large{number}", traits=traits)))[0] for number in range(3)]
    expected = {f"user_id:u{number}": person.profile_id for number, person in enumerate(people)}
    expected |= {f"email:{number}@x.y": person.profile_id for number, person in enumerate(people)}
    expected |= {person.profile_id: person.profile_id for person in people}
    expected |= {f"user_id:large{number}": person.profile_id for number, person in enumerate(large)}
    nobody = ["user_id:nobody", "not-a-uuid", "user_id:null", "018f0000-0000-7000-8000-000000000000", "email:u0"]
    for _ in range(3):
        leaving = [asyncio.ensure_future(profile_of(identity, name)) for name in ("user_id:u1", "user_id:large0", "user_id:nobody") * 5]
        asked = [*expected, *nobody]
        answers = asyncio.gather(*(profile_of(identity, name) for name in asked), profile_of(identity, "user_id:u0", "other"))
        await asyncio.sleep(0.001)
        for one in leaving:
            one.cancel()
        found = await answers
        ids = [profile and profile.profile_id for profile in found]
        assert ids == [*expected.values(), *[None] * len(nobody), elsewhere.profile_id]
        assert all(len(profile.traits) > 3_500_000 for profile in found[len(expected) - 3 : len(expected)])


async def test_pages_are_stable_while_profiles_come_and_merge(stubs: Stubs) -> None:
    identity, profiles = stubs
    made = await resolve(identity, *(seen(f"anonymous_id:a{number}") for number in range(7)), seen("user_id:x", workspace="other"))
    first = await profiles.ListProfiles(pb.ListProfilesRequest(workspace_id=WORKSPACE, page_size=3), timeout=10)
    assert [profile.profile_id for profile in first.profiles] == [item.profile_id for item in made[:3]]
    await resolve(identity, seen("anonymous_id:a0", "anonymous_id:a1"), seen("anonymous_id:a3", "anonymous_id:a4"))
    [late] = await resolve(identity, seen("anonymous_id:late"))
    rest, token = [], first.next_page_token
    while token:
        page = await profiles.ListProfiles(pb.ListProfilesRequest(workspace_id=WORKSPACE, page_size=3, page_token=token), timeout=10)
        rest += [profile.profile_id for profile in page.profiles]
        token = page.next_page_token
    assert rest == [made[3].profile_id, made[5].profile_id, made[6].profile_id, late.profile_id]
    assert [len(page) for page in await listed(profiles, WORKSPACE, 2)] == [2, 2, 2]
    assert [len(page) for page in await listed(profiles, "nowhere", 2)] == [0]


async def test_links_are_the_identifiers_by_type_and_value(stubs: Stubs) -> None:
    identity, profiles = stubs
    [visit] = await resolve(identity, seen("anonymous_id:a", "group_id:acme", message_id="m1"))
    await resolve(identity, seen("user_id:ada", "anonymous_id:b"), seen("user_id:ada", "anonymous_id:a"))
    for who in ("user_id:ada", visit.profile_id):
        answer = await profiles.ListProfileLinks(pb.ListProfileLinksRequest(workspace_id=WORKSPACE, key=key(who)), timeout=10)
        shown = [f"{link.identifier.type}:{link.identifier.value}" for link in answer.links]
        assert shown == ["anonymous_id:a", "anonymous_id:b", "group_id:acme", "user_id:ada"]
        assert [link.message_id == "m1" for link in answer.links] == [True, False, True, False]
        assert all(link.create_time.seconds > 1_700_000_000 for link in answer.links)


async def test_bad_requests_get_clear_answers(stubs: Stubs) -> None:
    _, profiles = stubs
    for workspace in ("", "a\0b"):
        assert await code_of(batch(profiles, "user_id:u", workspace=workspace)) == "INVALID_ARGUMENT"
        assert await code_of(listed(profiles, workspace, 1)) == "INVALID_ARGUMENT"
    unset = pb.BatchGetProfilesRequest(workspace_id=WORKSPACE, keys=[pb.ProfileKey()])
    assert await code_of(profiles.BatchGetProfiles(unset)) == "INVALID_ARGUMENT"
    for fields in ({"page_size": -1}, {"page_token": "x"}, {"page_token": "-1"}, {"page_token": "9" * 19}, {"page_token": "9" * 5_000}):
        request = pb.ListProfilesRequest(workspace_id=WORKSPACE, **fields)
        assert await code_of(profiles.ListProfiles(request)) == "INVALID_ARGUMENT"
    for token in ("x", "eA==", "LTEsbQ==", "\N{SNOWMAN}"):
        request = pb.ListProfileEventsRequest(workspace_id=WORKSPACE, key=key("user_id:u"), page_token=token)
        assert await code_of(profiles.ListProfileEvents(request)) == "INVALID_ARGUMENT"
    for who, code in (("user_id:u", "NOT_FOUND"), ("not-a-uuid", "NOT_FOUND"), ("user_id:u\0", "NOT_FOUND")):
        assert await code_of(profiles.ListProfileLinks(pb.ListProfileLinksRequest(workspace_id=WORKSPACE, key=key(who)))) == code
        assert await code_of(profiles.ListProfileEvents(pb.ListProfileEventsRequest(workspace_id=WORKSPACE, key=key(who)))) == code


async def test_events_need_a_warehouse_and_say_so(stubs: Stubs) -> None:
    identity, profiles = stubs
    await resolve(identity, seen("user_id:u"))
    request = pb.ListProfileEventsRequest(workspace_id=WORKSPACE, key=key("user_id:u"))
    with pytest.raises(grpc.aio.AioRpcError, match="CDI_WAREHOUSE_ADDRESS") as raised:
        await profiles.ListProfileEvents(request)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
