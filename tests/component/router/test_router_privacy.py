"""Suppressed people at delivery; erasing stored deliveries; telling destinations to delete."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cdi.consent.v1 import privacy_pb2
from cdi.event.v1 import outcome_pb2
from cdi.router.v1.destination_pb2 import WebhookDeletion
from cdi_testing import eventually
from tests.component.privacy_side import tell
from tests.component.router.privacy_stage import HER, SERVICE, TOKEN, Calls, Stage, hers, other


async def test_nothing_is_delivered_to_suppressed_people(stage: Stage) -> None:
    """Also where no purpose is asked for; exactly those events that were received before."""
    router = stage.router
    await router.apply("crm")
    now = datetime.now(UTC).replace(microsecond=0)
    stage.consents.until[HER[0][1]] = now
    events = [hers(1, at=now - timedelta(days=1)), other(1), hers(2, at=now), hers(3, at=now + timedelta(seconds=1))]
    sequences = await router.publish(events)
    await eventually(lambda: len(router.hook.taken("crm")) == 2)
    assert set(router.hook.taken("crm")) == {"o1", "h3"}
    await eventually(lambda: _delivered(router, "crm", 2))
    assert await router.counts("crm") == {("delivered", ""): 2, ("suppressed", "suppressed"): 2}
    assert [await _told(router, "crm", event, sequences) for event in events] == [
        ("suppressed", "suppressed"), ("delivered", ""), ("suppressed", "suppressed"), ("delivered", ""),
    ]  # fmt: skip


async def test_what_waits_and_what_was_given_up_is_erased(stage: Stage) -> None:
    router = stage.router
    await router.apply("slow")
    await router.apply("strict")
    router.hook.always("slow", 503)
    router.hook.always("strict", 400)
    events = [hers(1, properties={"note": TOKEN}), hers(2), other(1)]
    sequences = await router.publish(events)
    await eventually(lambda: _parked(router, 3))
    await eventually(lambda: _dead(router, 3))
    asked = stage.order(verb=privacy_pb2.PRIVACY_VERB_ACCESS)
    await tell(router.bus, asked)
    await stage.consent.reported(asked, SERVICE)
    held = stage.consent.holdings[asked.request_id, SERVICE]
    assert {name: sorted(event["messageId"] for event in events) for name, events in held.items()} == {
        "parked_deliveries": ["h1", "h2"], "dead_deliveries": ["h1", "h2"],
    }  # fmt: skip
    assert await stage.planted() == {"parked_deliveries": 2, "dead_deliveries": 2}

    erasing = stage.order()
    await tell(router.bus, erasing)
    steps = await stage.consent.reported(erasing, SERVICE)
    assert {name: step.count for name, step in steps.items()} == {"parked_deliveries": 2, "dead_deliveries": 2}
    assert await stage.planted() == {}
    # Nothing of hers is left, and yet nobody says that it was delivered.
    assert [await _told(router, "slow", event, sequences) for event in events] == [("suppressed", "suppressed")] * 2 + [("parked", "")]
    assert {await _told(router, "strict", event, sequences) for event in events} == {("dead_lettered", "destination_refused")}
    counts = await router.counts("slow")
    assert counts == {("parked", ""): 1, ("suppressed", "suppressed"): 2}
    router.hook.always("slow", 200)
    await eventually(lambda: _delivered(router, "slow", 1))
    assert [event.message_id for event in await router.dead("strict")] == ["o1"]

    again = stage.order(request_id=erasing.request_id, attempt=2)
    await tell(router.bus, again)
    assert {name: step.count for name, step in (await stage.consent.reported(again, SERVICE)).items()} == {"parked_deliveries": 0}


async def test_destinations_are_told_to_delete(stage: Stage, calls: Calls) -> None:
    router = stage.router
    await router.apply("whole", webhook={"deletion": WebhookDeletion(url=f"{calls.url}/forget")})
    await router.apply(
        "each", webhook={"deletion": WebhookDeletion(url=f"{calls.url}/{{type}}/{{id}}", method="DELETE", id_types=["email"])}
    )
    await router.apply("cannot")
    calls.statuses += [503]
    erasing = stage.order(at_destinations=True, profiles=["p1"])
    await tell(router.bus, erasing)
    steps = await stage.consent.reported(erasing, SERVICE)
    by_name = {name.partition(":")[2].partition("-")[0]: (step.status, step.count) for name, step in steps.items() if ":" in name}
    finished, unsupported = privacy_pb2.PRIVACY_STATUS_FINISHED, privacy_pb2.PRIVACY_STATUS_NOT_SUPPORTED
    assert by_name == {"whole": (finished, 1), "each": (finished, 1), "cannot": (unsupported, 0)}
    assert len(calls.taken) == 3
    assert len({key for _, _, _, key in calls.taken}) == 2  # the same again after a 503, under the same key
    made = {path: (method, body) for method, path, body, _ in calls.taken}
    method, body = made["/forget"]
    assert (method, {(each["type"], each["id"]) for each in body["subjects"]}, body["profileIds"]) == ("POST", set(HER), ["p1"])
    assert made[f"/email/{TOKEN}%40example.com"][0] == "DELETE"

    calls.taken.clear()
    calls.statuses += [403]
    refused = stage.order(at_destinations=True)
    await tell(router.bus, refused, stage.order(("user_id", "internal")))
    steps = await stage.consent.reported(refused, SERVICE)
    failed = [step for step in steps.values() if step.status == privacy_pb2.PRIVACY_STATUS_FAILED]
    assert [step.detail for step in failed] == ["status 403"]


async def _told(router: Any, name: str, event: Any, sequences: dict[str, int]) -> tuple[str, str]:
    """Outcome and reason of an event, as explained."""
    told = (await router.explain(event, sequences[event.message_id]))[name]
    return outcome_pb2.Outcome.Name(told.outcome).removeprefix("OUTCOME_").lower(), told.reason


async def _parked(router: Any, events: int) -> bool:
    return bool((await router.counts("slow")).get(("parked", "")) == events)


async def _dead(router: Any, events: int) -> bool:
    return len(await router.dead("strict")) == events


async def _delivered(router: Any, name: str, events: int) -> bool:
    return bool(await router.delivered(name) == events)
