"""Enrichment as a process, over real NATS and Postgres, beside real consent and identity."""

import http.client
import json
from typing import Any

import grpc
import pytest

from cdi.consent.v1.consent_service_pb2 import ApplyPurposeRequest
from cdi.consent.v1.purpose_pb2 import Purpose
from cdi.enrichment.v1.enrichment_service_pb2 import ApplyTrackingPlanRequest, ExplainEventRequest, ListTrackingPlansRequest
from cdi.enrichment.v1.tracking_plan_pb2 import VIOLATION_POLICY_FORWARD, EventRule, TrackingPlan
from cdi.event.v1.event_pb2 import Event
from cdi.identity.v1.identity_service_pb2 import ApplyIdentityRulesRequest, GetProfileRequest
from cdi.identity.v1.profile_pb2 import Identifier
from cdi.identity.v1.rules_pb2 import IdentifierRule, IdentityRules
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.envelope import EVENTS, SOURCE_SEQUENCE
from cdi_kernel.topology import StreamName
from cdi_testing import eventually
from cdi_testing.builders import SOURCE, alias, identify, page, track

from .conftest import PARTITIONS, Run


def ids(events: list[Event]) -> list[str]:
    return [event.message_id for event in events]


def numbered(count: int, prefix: str = "m", **fields: Any) -> list[Event]:
    return [track(message_id=f"{prefix}-{number}", **fields) for number in range(count)]


def not_ready(service: ServiceProcess) -> dict[str, str]:
    """What /readyz gives as reasons."""
    connection = http.client.HTTPConnection(service.ops, timeout=5)
    connection.request("GET", "/readyz")
    return dict(json.loads(connection.getresponse().read()))


async def passed(run: Run, event: Event) -> Event:
    """Sends one event and waits for what becomes of it."""
    await run.collect([event])

    async def found() -> Event | None:
        return next((one for one in await run.enriched() if one.message_id == event.message_id), None)

    result = await eventually(found)
    assert result is not None
    return result


async def test_an_event_leaves_with_consent_identity_and_enrichments(run: Run) -> None:
    context = {"ip": "8.8.8.8", "page": {"url": "https://shop.example/?utm_source=news"}, "externalIds": [{"id": "x", "type": "GA"}]}
    events = [page(anonymous_id="a-1", context=context), identify(user_id="u-1", anonymous_id="a-1"), alias("old", user_id="u-1")]
    sequences = await run.collect(events, partition=1)
    await run.handled(3)
    enriched = await run.enriched()
    assert ids(enriched) == ids(events)
    assert {event.identity.profile_id for event in enriched} == {enriched[0].identity.profile_id}
    assert enriched[0].identity.created
    assert enriched[0].consent.linkable
    assert enriched[0].enrichments.geo.country == "US"
    assert enriched[0].enrichments.campaign.source == "news"
    assert [(external.type, external.value) for external in enriched[0].external_ids] == [("ga", "x")]
    assert enriched[1].enrichments.email_quality.valid_syntax
    (message,) = await run.stored(StreamName.ENRICHED)
    assert (message.headers[SOURCE_SEQUENCE], message.headers[EVENTS]) == (str(sequences[0]), "3")
    assert message.partition == 1
    answer = await run.identities.GetProfile(
        GetProfileRequest(workspace_id=run.workspace, identifier=Identifier(type="email", value="ada@example.com"))
    )
    assert answer.profile.profile_id == enriched[0].identity.profile_id
    assert json.loads(answer.profile.traits)["email"] == "ada@example.com"


async def test_duplicates_are_dropped_in_a_batch_across_batches_and_after_a_restart(run: Run) -> None:
    first, second = track(message_id="one"), track(message_id="two")
    await run.collect([first, second, first], [second, track(message_id="three")], partition=0)
    await run.collect([first], partition=3)
    await run.handled(6)
    run.stage.enrichment.stop()
    run.stage.enrichment.start()
    await run.collect([second, track(message_id="four"), track(message_id="one", workspace_id="other")], partition=0)
    await run.handled(9)
    enriched = await run.enriched()
    assert sorted((event.workspace_id, event.message_id) for event in enriched) == sorted(
        [(run.workspace, "one"), (run.workspace, "two"), (run.workspace, "three"), (run.workspace, "four"), ("other", "one")]
    )
    counts = await run.counts()
    assert counts == {("accepted", ""): 9, ("duplicate", ""): 4, ("enriched", ""): 5}


async def test_after_kill_9_nothing_is_lost_or_doubled_and_counts_are_exact(run: Run) -> None:
    batches = [numbered(50, f"b{batch}-p{partition}") for batch in range(40) for partition in range(PARTITIONS)]
    for number in range(0, len(batches), 8):
        for offset, batch in enumerate(batches[number : number + 8]):
            await run.collect(batch, batch[:1], partition=offset % PARTITIONS)
        if number in (40, 96):
            run.stage.enrichment.kill()
            run.stage.enrichment.start()
    total = sum(len(batch) + 1 for batch in batches)
    await run.handled(total)
    enriched = await run.enriched()
    assert len(enriched) == len(set(ids(enriched))) == total - len(batches)
    assert await run.counts() == {("accepted", ""): total, ("duplicate", ""): len(batches), ("enriched", ""): total - len(batches)}
    sequences: dict[int, list[int]] = {}
    for message in await run.stored(StreamName.ENRICHED):
        sequences.setdefault(message.partition, []).append(int(message.headers[SOURCE_SEQUENCE]))
    assert all(found == sorted(set(found)) for found in sequences.values())


async def test_a_poison_event_is_isolated(run: Run) -> None:
    events = numbered(40)
    poison = track(message_id="poison", workspace_id="bad\x00name")
    malformed = Event(workspace_id=run.workspace, source_id=SOURCE, message_id="malformed", type=1, name="x", user_id="u", context=b"{")
    await run.collect([*events[:17], poison, *events[17:], malformed])
    await run.handled(42)
    assert ids(await run.enriched()) == ids(events)
    rejected = {event.message_id: event for event in await run.rejected()}
    assert {name: event.reason for name, event in rejected.items()} == {"poison": "poison_event", "malformed": "malformed_payload"}
    assert rejected["poison"].rejection_id.startswith("COLLECTED-")
    assert Event.FromString(rejected["poison"].payload).message_id == "poison"
    assert (rejected["poison"].stage, rejected["poison"].type, rejected["poison"].name) == ("enrichment", "track", "Product Viewed")
    assert (await run.counts())["rejected", "poison_event"] == 1


async def test_a_tracking_plan_blocks_or_forwards_within_two_seconds(run: Run) -> None:
    schema = json.dumps({"properties": {"properties": {"required": ["total"], "properties": {"total": {"type": "number"}}}}})
    plan = TrackingPlan(
        workspace_id=run.workspace, name="shop", source_ids=[SOURCE], rules=[EventRule(type="track", event="Order", json_schema=schema)]
    )
    applied = await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    assert (applied.changed, applied.tracking_plan.version) == (True, 1)
    good, bad = track("Order", properties={"total": 5}), track("Order", properties={"total": "no"})
    await run.collect([good, bad, track("Unknown"), identify()])
    await run.handled(4)
    assert [(event.validation.plan, event.validation.version) for event in await run.enriched()] == [("shop", 1)] * 2
    assert [(event.reason, list(event.violation_paths)) for event in await run.rejected()] == [
        ("schema_violation", ["/properties/total"]),
        ("unplanned_event", ["/event"]),
    ]
    plan.violations = VIOLATION_POLICY_FORWARD
    applied = await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    assert (applied.changed, applied.tracking_plan.version) == (True, 2)
    await run.collect([track("Order", message_id="forwarded")])
    await run.handled(5)
    forwarded = (await run.enriched())[-1]
    assert [(v.type, v.path) for v in forwarded.validation.violations] == [("Required-Missing", "/properties/total")]
    assert not (await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))).changed


async def test_plans_are_listed_by_page_and_bad_ones_are_refused(run: Run) -> None:
    for number in range(3):
        plan = TrackingPlan(workspace_id="pages", name=f"plan-{number}", source_ids=[f"source-{number}"])
        await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    first = await run.plans.ListTrackingPlans(ListTrackingPlansRequest(workspace_id="pages", page_size=2))
    second = await run.plans.ListTrackingPlans(
        ListTrackingPlansRequest(workspace_id="pages", page_size=2, page_token=first.next_page_token)
    )
    assert [plan.name for plan in [*first.tracking_plans, *second.tracking_plans]] == ["plan-0", "plan-1", "plan-2"]
    assert not second.next_page_token
    bad = TrackingPlan(workspace_id="pages", name="bad", source_ids=["x"], rules=[EventRule(type="track", json_schema='{"type": 5}')])
    taken = TrackingPlan(workspace_id="pages", name="taken", source_ids=["source-0"])
    for wrong, code in ((bad, grpc.StatusCode.INVALID_ARGUMENT), (taken, grpc.StatusCode.ALREADY_EXISTS)):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=wrong))
        assert refusal.value.code() is code


@pytest.mark.parametrize("dependency", ["identity", "consent"])
async def test_while_a_dependency_is_away_events_wait_and_then_go_on_in_order(run: Run, dependency: str) -> None:
    process = run.stage.identity if dependency == "identity" else run.stage.consent
    await run.collect(numbered(3, "before"))
    await run.handled(3)
    process.kill()
    for number in range(10):
        await run.collect(numbered(5, f"during-{number}"))
    await eventually(lambda: dependency in not_ready(run.stage.enrichment))
    assert len(await run.enriched()) == 3
    process.start()
    await run.handled(53)
    assert ids(await run.enriched()) == [f"before-{i}" for i in range(3)] + [f"during-{n}-{i}" for n in range(10) for i in range(5)]
    await eventually(lambda: not not_ready(run.stage.enrichment))


async def test_an_event_that_may_not_be_linked_gets_a_fallback_id_and_stays_out_of_the_graph(run: Run) -> None:
    purpose = Purpose(workspace_id=run.workspace, name="analytics", required_for_linking=True)
    await run.consents.ApplyPurpose(ApplyPurposeRequest(purpose=purpose))
    granted = {"consent": {"categoryPreferences": {"analytics": True}}}

    async def refused() -> bool:
        return (await passed(run, track(user_id="no"))).identity.fallback

    await eventually(refused)
    first, second = await passed(run, track(user_id="no")), await passed(run, track(user_id="no"))
    linked = await passed(run, track(user_id="yes", context=granted))
    assert first.identity.profile_id == second.identity.profile_id
    assert (first.consent.linkable, linked.consent.linkable, linked.identity.fallback) == (False, True, False)
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await run.identities.GetProfile(GetProfileRequest(workspace_id=run.workspace, profile_id=first.identity.profile_id))
    known = GetProfileRequest(workspace_id=run.workspace, identifier=Identifier(type="user_id", value="yes"))
    assert (await run.identities.GetProfile(known)).profile.profile_id


async def test_an_event_can_be_found_again(run: Run) -> None:
    events = numbered(3)
    (sequence,) = await run.collect(events, partition=2)
    await run.handled(3)
    found = await run.plans.ExplainEvent(ExplainEventRequest(workspace_id=run.workspace, message_id="m-1"))
    assert (found.partition, found.collected_sequence, found.index) == (2, sequence, 1)
    assert found.seen_time.seconds > 0
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await run.plans.ExplainEvent(ExplainEventRequest(workspace_id=run.workspace, message_id="never"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_rules_of_identity_say_where_identifiers_are_and_what_events_leave_with(run: Run) -> None:
    first = await passed(run, identify(user_id="ada", traits={"phone": "+49", "plan": "pro", "secret": "s"}))
    assert not first.identity.traits
    rules = IdentityRules(
        workspace_id=run.workspace,
        identifiers=[IdentifierRule(type="phone", paths=["traits.phone", "properties.phone"])],
        event_traits=["plan"],
    )
    await run.identities.ApplyIdentityRules(ApplyIdentityRulesRequest(rules=rules))

    async def phone_known() -> bool:
        await passed(run, identify(user_id="ada", traits={"phone": "+49"}))
        request = GetProfileRequest(workspace_id=run.workspace, identifier=Identifier(type="phone", value="+49"))
        try:
            return bool((await run.identities.GetProfile(request)).profile.profile_id)
        except grpc.aio.AioRpcError:
            return False

    assert await eventually(phone_known)
    called = await passed(run, track(anonymous_id="call", properties={"phone": "+49"}))
    assert called.identity.profile_id == first.identity.profile_id
    assert json.loads(called.identity.traits) == {"plan": "pro"}
