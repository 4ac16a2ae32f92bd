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
from cdi.identity.v1.identity_service_pb2 import GetProfileRequest
from cdi.identity.v1.profile_pb2 import Identifier
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.envelope import EVENTS, SOURCE_SEQUENCE
from cdi_kernel.topology import StreamName
from cdi_testing import eventually
from cdi_testing.builders import SOURCE, WORKSPACE, alias, identify, page, track

from .conftest import PARTITIONS, Stage

WITHIN = 20.0


def ids(events: list[Event]) -> list[str]:
    return [event.message_id for event in events]


def numbered(count: int, prefix: str = "m", **fields: Any) -> list[Event]:
    return [track(message_id=f"{prefix}-{number}", **fields) for number in range(count)]


def not_ready(service: ServiceProcess) -> dict[str, str]:
    """What /readyz gives as reasons."""
    connection = http.client.HTTPConnection(service.ops, timeout=5)
    connection.request("GET", "/readyz")
    return dict(json.loads(connection.getresponse().read()).get("reasons", {}))


async def test_an_event_leaves_with_consent_identity_and_enrichments(stage: Stage) -> None:
    context = {"ip": "8.8.8.8", "page": {"url": "https://shop.example/?utm_source=news"}, "externalIds": [{"id": "x", "type": "GA"}]}
    events = [page(anonymous_id="a-1", context=context), identify(user_id="u-1", anonymous_id="a-1"), alias("old", user_id="u-1")]
    sequences = await stage.collect(events, partition=1)
    enriched = await eventually(lambda: stage.enriched(), within=WITHIN)
    assert ids(enriched) == ids(events)
    assert {event.identity.profile_id for event in enriched} == {enriched[0].identity.profile_id}
    assert enriched[0].identity.created
    assert enriched[0].consent.linkable
    assert enriched[0].enrichments.geo.country == "US"
    assert enriched[0].enrichments.campaign.source == "news"
    assert [(external.type, external.value) for external in enriched[0].external_ids] == [("ga", "x")]
    assert enriched[1].enrichments.email_quality.valid_syntax
    (message,) = await stage.stored(StreamName.ENRICHED)
    assert (message.headers[SOURCE_SEQUENCE], message.headers[EVENTS]) == (str(sequences[0]), "3")
    assert message.partition == 1
    answer = await stage.identities.GetProfile(
        GetProfileRequest(workspace_id=WORKSPACE, identifier=Identifier(type="email", value="ada@example.com"))
    )
    assert answer.profile.profile_id == enriched[0].identity.profile_id
    assert json.loads(answer.profile.traits)["email"] == "ada@example.com"


async def test_duplicates_are_dropped_in_a_batch_across_batches_and_after_a_restart(stage: Stage) -> None:
    first, second = track(message_id="one"), track(message_id="two")
    await stage.collect([first, second, first], [second, track(message_id="three")], partition=0)
    await stage.collect([first], partition=3)
    await eventually(lambda: _accepted(stage, 6), within=WITHIN)
    stage.enrichment.stop()
    stage.enrichment.start()
    await stage.collect([second, track(message_id="four"), track(message_id="one", workspace_id="other")], partition=0)
    await eventually(lambda: _accepted(stage, 9), within=WITHIN)
    enriched = await stage.enriched()
    assert sorted((event.workspace_id, event.message_id) for event in enriched) == sorted(
        [(WORKSPACE, "one"), (WORKSPACE, "two"), (WORKSPACE, "three"), (WORKSPACE, "four"), ("other", "one")]
    )
    counts = await stage.counts()
    assert counts == {("accepted", ""): 9, ("duplicate", ""): 4, ("enriched", ""): 5}


async def test_after_kill_9_nothing_is_lost_or_doubled_and_counts_are_exact(stage: Stage) -> None:
    batches = [numbered(50, f"b{batch}-p{partition}") for batch in range(40) for partition in range(PARTITIONS)]
    for number in range(0, len(batches), 8):
        for offset, batch in enumerate(batches[number : number + 8]):
            await stage.collect(batch, batch[:1], partition=offset % PARTITIONS)
        if number in (40, 96):
            stage.enrichment.kill()
            stage.enrichment.start()
    total = sum(len(batch) + 1 for batch in batches)
    await eventually(lambda: _accepted(stage, total), within=40)
    enriched = await stage.enriched()
    assert len(enriched) == len(set(ids(enriched))) == total - len(batches)
    assert await stage.counts() == {("accepted", ""): total, ("duplicate", ""): len(batches), ("enriched", ""): total - len(batches)}
    sequences: dict[int, list[int]] = {}
    for message in await stage.stored(StreamName.ENRICHED):
        sequences.setdefault(message.partition, []).append(int(message.headers[SOURCE_SEQUENCE]))
    assert all(found == sorted(set(found)) for found in sequences.values())


async def test_a_poison_event_is_isolated(stage: Stage) -> None:
    events = numbered(40)
    poison = track(message_id="poison", workspace_id="bad\x00name")
    malformed = Event(workspace_id=WORKSPACE, source_id=SOURCE, message_id="malformed", type=1, name="x", user_id="u", context=b"{")
    await stage.collect([*events[:17], poison, *events[17:], malformed])
    await eventually(lambda: _accepted(stage, 42), within=WITHIN)
    assert ids(await stage.enriched()) == ids(events)
    rejected = {event.message_id: event for event in await stage.rejected()}
    assert {name: event.reason for name, event in rejected.items()} == {"poison": "poison_event", "malformed": "malformed_payload"}
    assert rejected["poison"].rejection_id.startswith("COLLECTED-")
    assert Event.FromString(rejected["poison"].payload).message_id == "poison"
    assert (rejected["poison"].stage, rejected["poison"].type, rejected["poison"].name) == ("enrichment", "track", "Product Viewed")
    assert (await stage.counts())["rejected", "poison_event"] == 1


async def test_a_tracking_plan_blocks_or_forwards_within_two_seconds(stage: Stage) -> None:
    schema = json.dumps({"properties": {"properties": {"required": ["total"], "properties": {"total": {"type": "number"}}}}})
    plan = TrackingPlan(
        workspace_id=WORKSPACE, name="shop", source_ids=[SOURCE], rules=[EventRule(type="track", event="Order", json_schema=schema)]
    )
    applied = await stage.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    assert (applied.changed, applied.tracking_plan.version) == (True, 1)
    good, bad = track("Order", properties={"total": 5}), track("Order", properties={"total": "no"})
    await stage.collect([good, bad, track("Unknown"), identify()])
    await eventually(lambda: _accepted(stage, 4), within=WITHIN)
    assert [(event.validation.plan, event.validation.version) for event in await stage.enriched()] == [("shop", 1)] * 2
    assert [(event.reason, list(event.violation_paths)) for event in await stage.rejected()] == [
        ("schema_violation", ["/properties/total"]),
        ("unplanned_event", ["/event"]),
    ]
    plan.violations = VIOLATION_POLICY_FORWARD
    applied = await stage.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    assert (applied.changed, applied.tracking_plan.version) == (True, 2)
    await stage.collect([track("Order", message_id="forwarded")])
    await eventually(lambda: _accepted(stage, 5), within=WITHIN)
    forwarded = (await stage.enriched())[-1]
    assert [(v.type, v.path) for v in forwarded.validation.violations] == [("Required-Missing", "/properties/total")]
    assert not (await stage.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))).changed


async def test_plans_are_listed_by_page_and_bad_ones_are_refused(stage: Stage) -> None:
    for number in range(3):
        plan = TrackingPlan(workspace_id="pages", name=f"plan-{number}", source_ids=[f"source-{number}"])
        await stage.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    first = await stage.plans.ListTrackingPlans(ListTrackingPlansRequest(workspace_id="pages", page_size=2))
    second = await stage.plans.ListTrackingPlans(
        ListTrackingPlansRequest(workspace_id="pages", page_size=2, page_token=first.next_page_token)
    )
    assert [plan.name for plan in [*first.tracking_plans, *second.tracking_plans]] == ["plan-0", "plan-1", "plan-2"]
    assert not second.next_page_token
    bad = TrackingPlan(workspace_id="pages", name="bad", source_ids=["x"], rules=[EventRule(type="track", json_schema='{"type": 5}')])
    taken = TrackingPlan(workspace_id="pages", name="taken", source_ids=["source-0"])
    for wrong, code in ((bad, grpc.StatusCode.INVALID_ARGUMENT), (taken, grpc.StatusCode.ALREADY_EXISTS)):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stage.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=wrong))
        assert refusal.value.code() is code


@pytest.mark.parametrize("dependency", ["identity", "consent"])
async def test_while_a_dependency_is_away_events_wait_and_then_go_on_in_order(stage: Stage, dependency: str) -> None:
    process = stage.identity if dependency == "identity" else stage.consent
    await stage.collect(numbered(3, "before"))
    await eventually(lambda: _accepted(stage, 3), within=WITHIN)
    process.kill()
    for number in range(10):
        await stage.collect(numbered(5, f"during-{number}"))
    await eventually(lambda: dependency in not_ready(stage.enrichment), within=WITHIN)
    assert len(await stage.enriched()) == 3
    process.start()
    await eventually(lambda: _accepted(stage, 53), within=WITHIN)
    assert ids(await stage.enriched()) == [f"before-{i}" for i in range(3)] + [f"during-{n}-{i}" for n in range(10) for i in range(5)]
    await eventually(lambda: not not_ready(stage.enrichment), within=WITHIN)


async def test_an_event_that_may_not_be_linked_gets_a_fallback_id_and_stays_out_of_the_graph(stage: Stage) -> None:
    purpose = Purpose(workspace_id=WORKSPACE, name="analytics", required_for_linking=True)
    await stage.consents.ApplyPurpose(ApplyPurposeRequest(purpose=purpose))
    granted = {"consent": {"categoryPreferences": {"analytics": True}}}

    async def outcomes() -> list[tuple[bool, bool]]:
        await stage.collect([track(user_id="no"), track(user_id="no"), track(user_id="yes", context=granted)])
        enriched = (await eventually(lambda: stage.enriched(), within=WITHIN))[-3:]
        assert enriched[0].identity.profile_id == enriched[1].identity.profile_id
        return [(event.consent.linkable, event.identity.fallback) for event in enriched]

    await eventually(lambda: _equal(outcomes, [(False, True), (False, True), (True, False)]), within=WITHIN)
    known = GetProfileRequest(workspace_id=WORKSPACE, identifier=Identifier(type="user_id", value="yes"))
    assert (await stage.identities.GetProfile(known)).profile.profile_id


async def test_an_event_can_be_found_again(stage: Stage) -> None:
    events = numbered(3)
    (sequence,) = await stage.collect(events, partition=2)
    await eventually(lambda: _accepted(stage, 3), within=WITHIN)
    found = await stage.plans.ExplainEvent(ExplainEventRequest(workspace_id=WORKSPACE, message_id="m-1"))
    assert (found.partition, found.collected_sequence, found.index) == (2, sequence, 1)
    assert found.seen_time.seconds > 0
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stage.plans.ExplainEvent(ExplainEventRequest(workspace_id=WORKSPACE, message_id="never"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def _accepted(stage: Stage, events: int) -> bool:
    try:
        counts = await stage.counts()
    except grpc.aio.AioRpcError:
        return False
    assert counts.get(("accepted", ""), 0) <= events
    return counts.get(("accepted", "")) == events


async def _equal(ask: Any, expected: Any) -> bool:
    return bool(await ask() == expected)
