"""What operators do with persons: rules, merge, split, explain, over real Postgres and NATS."""

import json

import grpc
import pytest

from cdi.identity.v1 import rules_pb2
from cdi.identity.v1.identity_service_pb2 import (
    ApplyIdentityRulesRequest,
    ExplainProfileRequest,
    ExplainResolutionRequest,
    GetIdentityRulesRequest,
    IdentifierSet,
    MergeProfilesRequest,
    SplitProfileRequest,
)
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import Profile
from cdi.identity.v1.rules_pb2 import Decision, IdentifierRule, IdentityRules
from cdi_cli.embedded import ServiceProcess
from cdi_runtime.bus import Bus
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE

from .conftest import Client
from .identity_calls import GraphAsTold, identifier, names, profile_of, resolve, seen, told


async def apply(stub: IdentityServiceStub, rules: IdentityRules) -> tuple[int, bool]:
    answer = await stub.ApplyIdentityRules(ApplyIdentityRulesRequest(rules=rules), timeout=10)
    return answer.rules.version, answer.changed


async def split(
    stub: IdentityServiceStub, profile_id: str, *taken: str, merged: str = "", request_id: str = "r1"
) -> tuple[Profile, Profile]:
    request = SplitProfileRequest(workspace_id=WORKSPACE, profile_id=profile_id, request_id=request_id, reason="asked for")
    if merged:
        request.merged_profile_id = merged
    else:
        request.identifiers.CopyFrom(IdentifierSet(identifiers=map(identifier, taken)))
    answer = await stub.SplitProfile(request, timeout=10)
    return answer.remaining, answer.separated


async def history(stub: IdentityServiceStub, profile_id: str, page_size: int = 0) -> list[Decision]:
    decisions: list[Decision] = []
    token = ""
    while True:
        request = ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=profile_id, page_size=page_size, page_token=token)
        answer = await stub.ExplainProfile(request, timeout=10)
        decisions += answer.decisions
        token = answer.next_page_token
        if not token:
            return decisions


def kinds(decisions: list[Decision]) -> list[str]:
    return [rules_pb2.DecisionKind.Name(decision.kind).removeprefix("DECISION_KIND_") for decision in decisions]


async def test_rules_hold_from_the_next_batch_on_at_every_replica(replicas: tuple[ServiceProcess, ServiceProcess], client: Client) -> None:
    one, other = map(client, replicas)
    await resolve(other, seen("user_id:a", "email:shared@example.com", traits=b'{"plan":"pro","age":7}'))
    rules = IdentityRules(
        workspace_id=WORKSPACE,
        identifiers=[IdentifierRule(type="email", disabled=True), IdentifierRule(type="phone", limit=1, paths=["traits.phone"])],
        blocked_patterns=["test-.*"],
        event_traits=["plan", "none"],
    )
    assert await apply(one, rules) == (1, True)
    assert await apply(other, rules) == (1, False)
    ada, tested, known = await resolve(
        other, seen("user_id:b", "email:shared@example.com"), seen("user_id:test-1"), seen("user_id:a", "phone:1")
    )
    assert ada.created
    assert not tested.created
    assert json.loads(known.chosen_traits) == {"plan": "pro"}
    assert not ada.chosen_traits
    rules.event_traits.append("age")
    assert await apply(one, rules) == (2, True)
    [learning] = await resolve(other, seen("user_id:a", traits=b'{"age":8}', second=1))
    assert json.loads(learning.chosen_traits) == {"plan": "pro", "age": 8}
    rules.event_traits.pop()
    assert await apply(one, rules) == (3, True)
    [fast] = await resolve(one, seen("user_id:a"))
    assert json.loads(fast.chosen_traits) == {"plan": "pro"}
    rules.ClearField("identifiers")
    assert await apply(other, rules) == (4, True)
    [again] = await resolve(one, seen("email:shared@example.com"))
    assert again.profile_id == known.profile_id
    found = (await one.GetIdentityRules(GetIdentityRulesRequest(workspace_id=WORKSPACE))).rules
    assert (found.version, list(found.blocked_patterns), found.max_merges) == (4, ["test-.*"], 100)
    assert (await one.GetIdentityRules(GetIdentityRulesRequest(workspace_id="other"))).rules.version == 0


async def test_rules_that_are_none_are_refused(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    for rules in (
        IdentityRules(workspace_id=""),
        IdentityRules(workspace_id="w", blocked_patterns=["("]),
        IdentityRules(workspace_id="w", identifiers=[IdentifierRule(type="x", window=9)]),  # type: ignore[arg-type]
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await apply(stub, rules)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_merge_undone_is_as_if_it_had_not_been(identity: ServiceProcess, client: Client, bus: Bus) -> None:
    stub = client(identity)
    await resolve(
        stub,
        seen("user_id:ada", traits=b'{"plan":"pro","city":"Rome"}', second=5),
        seen("anonymous_id:x", traits=b'{"city":"Oslo"}', second=9),
        seen("email:bob", traits=b'{"plan":"free"}', second=9),
        seen("email:bob", "anonymous_id:x"),
    )
    before = [await profile_of(stub, key) for key in ("user_id:ada", "email:bob")]
    merging = seen("user_id:ada", "email:bob", message_id="merging", event_type="identify")
    [merged] = await resolve(stub, merging)
    ada, bob = (profile.profile_id if profile else "" for profile in before)
    assert (merged.profile_id, list(merged.merged_profile_ids)) == (ada, [bob])
    both = await profile_of(stub, ada)
    assert both is not None
    assert json.loads(both.traits) == {"plan": "free", "city": "Oslo"}

    remaining, separated = await split(stub, bob, merged=bob)
    assert [remaining, separated] == before == [await profile_of(stub, ada), await profile_of(stub, bob)]
    assert await split(stub, ada, merged=bob) == (remaining, separated)
    [again] = await resolve(stub, merging)
    assert (again.profile_id, list(again.merged_profile_ids)) == (ada, [])
    assert [item.value for item in again.demoted_identifiers] == ["bob"]

    history_of_ada, history_of_bob = await history(stub, ada), await history(stub, bob, page_size=1)
    assert kinds(history_of_ada) == ["SPLIT", "MERGED", "CREATED"]
    assert kinds(history_of_bob) == ["SPLIT", "MERGED", "MERGED", "CREATED", "CREATED"]
    assert history_of_ada[0].reason == "asked for"
    assert {item.value for item in history_of_ada[0].identifiers} == {"bob", "x"}
    assert (history_of_ada[1].triggering_event_id, history_of_ada[1].triggering_event_type) == ("merging", "identify")
    assert [item.value for item in history_of_ada[2].identifiers] == ["ada"]
    explained = await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE, message_id="merging"))
    assert kinds([explained.decision]) == ["MERGED"]
    await tells(bus, stub, {"user_id:ada", "email:bob"})


async def test_identifiers_taken_out_are_another_person_from_then_on(identity: ServiceProcess, client: Client, bus: Bus) -> None:
    stub = client(identity)
    shared = seen("user_id:ada", "anonymous_id:tv", traits=b'{"name":"Ada"}')
    [ada] = await resolve(stub, shared)
    await resolve(stub, seen("anonymous_id:tv", "ios.id:pad", traits=b'{"show":"news"}', second=5))
    remaining, separated = await split(stub, ada.profile_id, "anonymous_id:tv", "ios.id:pad")
    assert (names(remaining), json.loads(remaining.traits)) == ({"user_id:ada"}, {"name": "Ada"})
    assert (names(separated), json.loads(separated.traits)) == ({"anonymous_id:tv", "ios.id:pad"}, {"show": "news"})
    fast, kept = await resolve(stub, seen("ios.id:pad"), shared)
    assert fast.profile_id == separated.profile_id
    assert kept.profile_id == ada.profile_id
    asked = ExplainResolutionRequest(workspace_id=WORKSPACE, identifiers=IdentifierSet(identifiers=[*shared.identifiers]))
    decided = (await stub.ExplainResolution(asked)).decision
    assert kinds([decided]) == ["MATCHED"]
    assert [(item.identifier.value, item.reason) for item in decided.demotions] == [("tv", rules_pb2.DEMOTION_REASON_SEPARATED)]
    await tells(bus, stub, {"user_id:ada", "ios.id:pad"})

    merge = MergeProfilesRequest(
        workspace_id=WORKSPACE, profile_id=separated.profile_id, other_profile_id=ada.profile_id, request_id="again", reason="a mistake"
    )
    for _ in range(2):
        one = (await stub.MergeProfiles(merge)).profile
        assert (one.profile_id, len(one.identifiers), list(one.merged_profile_ids)) == (ada.profile_id, 3, [separated.profile_id])
    [together] = await resolve(stub, shared)
    assert not together.demoted_identifiers
    await tells(bus, stub, {"user_id:ada"})


async def test_what_cannot_be_done_is_said(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    [ada] = await resolve(stub, seen("user_id:ada"))
    nobody = "018f0000-0000-7000-8000-000000000000"
    for profile_id, taken, merged, request_id, code in (
        (ada.profile_id, ["user_id:ada"], "", "r", grpc.StatusCode.FAILED_PRECONDITION),
        (ada.profile_id, ["user_id:b\0b"], "", "r", grpc.StatusCode.FAILED_PRECONDITION),
        (ada.profile_id, [], nobody, "r", grpc.StatusCode.FAILED_PRECONDITION),
        (ada.profile_id, [], "x", "r", grpc.StatusCode.FAILED_PRECONDITION),
        (ada.profile_id, [], "", "r", grpc.StatusCode.FAILED_PRECONDITION),
        (nobody, [], nobody, "r", grpc.StatusCode.NOT_FOUND),
        ("x", [], nobody, "r", grpc.StatusCode.NOT_FOUND),
        (ada.profile_id, [], nobody, "", grpc.StatusCode.INVALID_ARGUMENT),
        (ada.profile_id, [], nobody, "r" * 101, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await split(stub, profile_id, *taken, merged=merged, request_id=request_id)
        assert refused.value.code() is code, (taken, merged, request_id)
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE, message_id="never"))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as neither:
        await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE))
    assert neither.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await stub.ExplainProfile(ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=ada.profile_id, page_token="x"))
    assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_was_left_out_is_recorded_once(shared_identity: ServiceProcess, client: Client) -> None:
    stub = client(shared_identity)
    batch = [seen("user_id:a", "email:e"), seen("user_id:b", "email:e", message_id="m\0b"), seen("user_id:b", "email:e", message_id="m3")]
    for _ in range(3):
        *_, other = await resolve(stub, *batch)
    decisions = await history(stub, other.profile_id)
    assert kinds(decisions) == ["MATCHED", "CREATED"]
    assert [(d.limited_type, d.reason) for decision in decisions for d in decision.demotions] == [
        ("user_id", rules_pb2.DEMOTION_REASON_LIMIT)
    ] * 2
    explained = await stub.ExplainResolution(ExplainResolutionRequest(workspace_id=WORKSPACE, message_id="m\0b"))
    assert explained.decision == decisions[1]


async def tells(bus: Bus, stub: IdentityServiceStub, keys: set[str]) -> None:
    """Waits until the stream tells the graph as the service has it."""
    profiles = [await profile_of(stub, key) for key in keys]
    people = {profile.profile_id: names(profile) for profile in profiles if profile}
    traits = {profile.profile_id: json.loads(profile.traits) for profile in profiles if profile}

    async def same() -> bool:
        graph = GraphAsTold(await told(bus))
        known = {owner: {name: json.loads(value) for name, value in graph.traits.get(owner, {}).items()} for owner in people}
        return graph.people() == people and known == traits

    await eventually(same)
