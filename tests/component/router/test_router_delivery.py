"""The router as a process over real NATS, Postgres and HTTP: what arrives, in which order, and what is counted."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from cdi.event.v1 import outcome_pb2
from cdi.router.v1 import router_service_pb2 as pb
from cdi.router.v1.destination_pb2 import RetryPolicy
from cdi_testing import builders, eventually


async def test_events_arrive_signed_in_batches_and_are_counted_once(router: Any, journey: Any, hook: Any) -> None:
    webhook = {"signing_secret": "env:HOOK_SECRET", "headers": {"Authorization": "env:HOOK_TOKEN", "X-Plain": "yes"}}
    await router.apply("crm", webhook=webhook)
    events = journey(20, 10, properties={"total": 9.5}, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    await router.publish(events)
    await eventually(lambda: len(hook.taken("crm")) == 200)
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 200}))

    request = hook.requests["crm"][0]
    expected = "sha256=" + hmac.new(b"s3cret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["CDI-Signature"] == expected
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers["X-Plain"] == "yes"
    assert request.headers["Content-Type"] == "application/json"
    assert len(request.headers["Idempotency-Key"]) == 32
    assert request.events[0]["properties"] == {"total": 9.5}
    # Batches, not events.
    assert len(hook.requests["crm"]) <= 8


async def test_applying_lists_versions_and_refuses_what_makes_no_sense(router: Any) -> None:
    first = await router.apply("crm")
    again = await router.apply("crm")
    changed = await router.apply("crm", event_types=["track"])
    assert [first.version, again.version, changed.version] == [1, 1, 2]
    for name in ("a", "b"):
        await router.apply(name, enabled=False)
    page = await router.stub.ListDestinations(pb.ListDestinationsRequest(workspace_id=router.workspace, page_size=2))
    rest = await router.stub.ListDestinations(pb.ListDestinationsRequest(workspace_id=router.workspace, page_token=page.next_page_token))
    assert [found.name.partition("-")[0] for found in (*page.destinations, *rest.destinations)] == ["a", "b", "crm"]
    for wrong in ({"url": "ftp://x/"}, {"url": ""}, {"signing_secret": "plain"}, {"max_batch_events": 1_001}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await router.apply("crm", webhook=wrong)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_one_destination_down_while_another_flows(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    hook.always("dead", 503)
    await router.apply("dead")
    await router.apply("alive")
    for _ in range(3):
        await router.publish(journey(20, 5)[:100])
    await eventually(lambda: len(hook.taken("alive")) == 100)
    assert hook.taken("dead") == []
    assert in_order(hook.taken("alive"))
    # Down as a whole: the stream is the queue. Only the few people who failed before that was clear may be parked, 5 events each.
    counts = await router.counts("dead")
    assert set(counts) <= {("parked", "")}
    assert counts.get(("parked", ""), 0) <= 4 * 5


async def test_503_for_a_while_then_everything_in_order(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    hook.always("crm", 503)
    await router.apply("crm", webhook={"max_batch_events": 10})
    events = journey(25, 20)
    for start in range(0, len(events), 100):
        await router.publish(events[start : start + 100])
    await eventually(lambda: len(hook.requests["crm"]) >= 4)
    hook.always("crm", 200)
    await eventually(lambda: len(hook.taken("crm")) == 500)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 500}))


async def test_some_people_fail_the_others_go_on(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    failing = True

    async def answer(message_ids: Sequence[str]) -> int:
        return 500 if failing and any(message_id.startswith("0:") for message_id in message_ids) else 200

    hook.answers["crm"] = answer
    await router.apply("crm", webhook={"max_batch_events": 5})
    events = journey(10, 30)
    sequences: dict[str, int] = {}
    for start in range(0, len(events), 60):
        sequences |= await router.publish(events[start : start + 60])
    await eventually(lambda: len(hook.taken("crm")) == 270)
    assert not any(message_id.startswith("0:") for message_id in hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 270, ("parked", ""): 30}))
    head, behind = events[0], events[10]
    told = (await router.explain(head, sequences[head.message_id]))["crm"]
    assert told.outcome == outcome_pb2.OUTCOME_PARKED
    assert "500" in told.description
    assert "behind" in (await router.explain(behind, sequences[behind.message_id]))["crm"].description

    failing = False
    await eventually(lambda: len(hook.taken("crm")) == 300)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 300}))


async def test_poison_in_the_middle_of_a_batch(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    async def answer(message_ids: Sequence[str]) -> int:
        return 422 if "3:2" in message_ids else 200

    hook.answers["crm"] = answer
    await router.apply("crm")
    events = journey(10, 5)
    sequences = await router.publish(events)
    await eventually(lambda: len(hook.taken("crm")) == 49)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 49, ("dead_lettered", "destination_refused"): 1}))
    [dead] = await router.dead("crm")
    assert (dead.message_id, dead.reason, dead.response_status, dead.response_body) == ("3:2", "destination_refused", 422, "the reason")
    assert b'"messageId":"3:2"' in dead.request_body
    assert dead.attempts == 1
    by_id = {event.message_id: event for event in events}
    assert (await router.explain(by_id["3:2"], sequences["3:2"]))["crm"].reason == "destination_refused"
    assert (await router.explain(by_id["3:3"], sequences["3:3"]))["crm"].outcome == outcome_pb2.OUTCOME_DELIVERED
    assert (await router.explain(by_id["3:3"], sequences["3:3"] + 99))["crm"].outcome == outcome_pb2.OUTCOME_UNSPECIFIED


async def test_given_up_when_time_and_attempts_are_passed(router: Any, journey: Any, hook: Any) -> None:
    async def answer(message_ids: Sequence[str]) -> int:
        return 500 if "0:0" in message_ids else 200

    hook.answers["crm"] = answer
    policy = RetryPolicy(initial_seconds=0.1, max_seconds=0.1, give_up_after_seconds=0.5, give_up_after_attempts=2)
    await router.apply("crm", retry=policy)
    await router.publish(journey(2, 3))
    await eventually(lambda: len(hook.taken("crm")) == 5)
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 5, ("dead_lettered", "retries_exhausted"): 1}))
    [dead] = await router.dead("crm")
    assert dead.attempts >= 2
    assert dead.response_status == 500


async def test_redirects_are_not_followed(router: Any, journey: Any, hook: Any) -> None:
    hook.always("crm", 302)
    await router.apply("crm")
    await router.publish(journey(1, 3))
    await eventually(lambda: _holds(router.counts("crm"), {("dead_lettered", "destination_refused"): 3}))
    assert len(hook.requests["crm"]) == 1
    assert hook.requests["elsewhere"] == []


async def test_a_timeout_is_tried_again(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    hanging = True
    hanging_requests: list[Sequence[str]] = []

    async def answer(message_ids: Sequence[str]) -> int:
        if hanging:
            hanging_requests.append(message_ids)
            await asyncio.sleep(30)
        return 200

    hook.answers["crm"] = answer
    await router.apply("crm", webhook={"timeout_seconds": 0.2})
    await router.publish(journey(12, 4))
    await eventually(lambda: len(hanging_requests) >= 2)
    hanging = False
    await eventually(lambda: len(hook.taken("crm")) == 48)
    assert in_order(hook.taken("crm"))


async def test_nobody_listens(router: Any, journey: Any) -> None:
    await router.apply("crm", webhook={"url": "http://127.0.0.1:1/"})
    await router.publish(journey(1, 3))
    await eventually(lambda: _holds(router.counts("crm"), {("parked", ""): 3}))


async def test_disabling_keeps_the_place_in_the_stream(router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    await router.apply("crm")
    await router.apply("never", enabled=False)
    events = journey(5, 9)
    await router.publish(events[:15])
    await eventually(lambda: len(hook.taken("crm")) == 15)
    await router.apply("crm", enabled=False)
    await router.publish(events[15:30])
    await router.apply("crm")
    await router.apply("never")
    await router.publish(events[30:])
    await eventually(lambda: len(hook.taken("crm")) == 45)
    await eventually(lambda: len(hook.taken("never")) == 45)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 45}))


async def test_filters_are_counted_with_their_reason(router: Any, hook: Any) -> None:
    await router.apply("crm", event_types=["track"], event_names=["Order Completed"])
    kept = builders.track("Order Completed", partitions=4)
    left = [
        builders.page(partitions=4),
        builders.track("Other", partitions=4),
        builders.track("Order Completed", integrations={"All": False}, partitions=4),
    ]
    sequences = await router.publish([kept, *left])
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 1, ("filtered", "filtered_by_destination"): 3}))
    assert hook.taken("crm") == [kept.message_id]
    told = (await router.explain(left[2], sequences[left[2].message_id]))["crm"]
    assert (told.reason, told.description) == ("filtered_by_destination", "left out by integrations")


async def test_a_message_published_twice_is_sent_once(router: Any, hook: Any) -> None:
    await router.apply("crm")
    event = builders.track(partitions=4)
    other = builders.track(user_id=event.user_id, partitions=4)
    await router.publish([event])
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 1}))
    # The sequences of one partition rise, so 1 was there before.
    headers = {"Cdi-Events": "1", "Cdi-Source-Sequence": "1"}
    payload = builders.event_batch([event]).SerializeToString()
    await router.bus.publish(f"cdi.enriched.{event.partition}", payload, message_id=f"again-{event.message_id}", headers=headers)
    await router.publish([other])
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 2}))
    assert len([event for request in hook.requests["crm"] for event in request.events]) == 2


async def _holds(counts: Any, expected: dict[tuple[str, str], int]) -> bool:
    found = {key: events for key, events in (await counts).items() if events}
    assert found == expected
    return True
