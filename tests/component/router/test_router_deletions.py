"""Delete calls outlive what goes wrong: a destination that is down, a router that dies at any point, consent that does not answer."""

import asyncio
from collections import Counter
from typing import Any

from cdi.consent.v1 import privacy_pb2
from cdi.router.v1.destination_pb2 import RetryPolicy, WebhookDeletion
from cdi_testing import eventually
from tests.component.privacy_side import RUNNING, tell
from tests.component.router.privacy_stage import SERVICE, TOKEN, Calls, Stage, hers, other

FINISHED, FAILED = privacy_pb2.PRIVACY_STATUS_FINISHED, privacy_pb2.PRIVACY_STATUS_FAILED


def by_store(steps: Any) -> dict[str, tuple[int, int]]:
    """Status and count by store, destinations by the name that the test gave them."""
    return {store.partition("-")[0]: (step.status, step.count) for store, step in steps.items()}


async def apply(stage: Stage, calls: Calls, name: str = "crm", path: str = "forget", **fields: Any) -> None:
    await stage.router.apply(name, webhook={"deletion": WebhookDeletion(url=f"{calls.url}/{path}")}, **fields)


async def test_a_destination_that_is_down_is_seen_and_told_when_it_is_back(stage: Stage, calls: Calls) -> None:
    await apply(stage, calls, "crm")
    calls.always = 503
    erasing = stage.order(at_destinations=True)
    await tell(stage.router.bus, erasing)
    await eventually(lambda: _running(stage, erasing, "status 503"))
    await eventually(lambda: len(calls.taken) > 4)  # more often than it takes to be given up, but not for so long
    assert set(await stage.planted()) == {"deletion_orders"}
    # Told again meanwhile, it goes on with what it has, and reports under the newest telling.
    again = stage.order(request_id=erasing.request_id, attempt=2, at_destinations=True)
    await tell(stage.router.bus, again)
    await eventually(lambda: bool(stage.consent.so_far(again, SERVICE)))
    calls.always = 200
    assert by_store(await stage.consent.reported(again, SERVICE)) == {"parked_deliveries": (FINISHED, 0), "destination:crm": (FINISHED, 1)}
    assert len({key for _, _, _, key in calls.taken}) == 1
    await eventually(lambda: _nothing_kept(stage))

    # The second look is a call of its own, which a destination that knows keys must not take for the first.
    second = stage.order(request_id=erasing.request_id, attempt=3, at_destinations=True)
    await tell(stage.router.bus, second)
    assert by_store(await stage.consent.reported(second, SERVICE))["destination:crm"] == (FINISHED, 1)
    assert len({key for _, _, _, key in calls.taken}) == 2


async def test_it_is_given_up_as_events_are(stage: Stage, calls: Calls) -> None:
    quick = RetryPolicy(initial_seconds=0.1, max_seconds=0.2, give_up_after_seconds=0.5, give_up_after_attempts=3)
    await apply(stage, calls, "gone", retry=quick)
    await apply(stage, calls, "busy", path="later", retry=quick, enabled=False)
    calls.by_path |= {"/forget": 500, "/later": 429}
    erasing = stage.order(at_destinations=True)
    await tell(stage.router.bus, erasing)
    await eventually(lambda: by_store(stage.consent.so_far(erasing, SERVICE)).get("destination:gone") == (FAILED, 0))
    assert by_store(stage.consent.so_far(erasing, SERVICE))["destination:busy"] == (RUNNING, 0), "429 says later and is never given up"
    calls.by_path.clear()
    steps = by_store(await stage.consent.reported(erasing, SERVICE))
    assert steps["destination:busy"] == (FINISHED, 1)
    # A retry begins anew where it failed.
    again = stage.order(request_id=erasing.request_id, attempt=2, at_destinations=True)
    await tell(stage.router.bus, again)
    assert by_store(await stage.consent.reported(again, SERVICE))["destination:gone"] == (FINISHED, 1)


async def test_a_slow_destination_delays_no_other(stage: Stage, calls: Calls) -> None:
    await apply(stage, calls, "slow")
    await apply(stage, calls, "quick", path="quick")
    calls.open.clear()
    first = stage.order(at_destinations=True)
    await tell(stage.router.bus, first)
    await eventually(lambda: len(calls.taken) == 2)
    others = [stage.order(("user_id", f"other-{number}"), at_destinations=True) for number in range(20)]
    await tell(stage.router.bus, *others)
    for each in others:
        await eventually(lambda each=each: by_store(stage.consent.so_far(each, SERVICE)).get("destination:quick") == (FINISHED, 1))
    calls.open.set()
    for each in (first, *others):
        assert by_store(await stage.consent.reported(each, SERVICE))["destination:slow"] == (FINISHED, 1)


async def test_killed_during_a_call_it_calls_again_under_the_same_key(stage: Stage, calls: Calls) -> None:
    router = stage.router
    await apply(stage, calls, "crm", retry=RetryPolicy(initial_seconds=600, max_seconds=600))
    router.hook.always("crm", 503)
    await router.publish([hers(1, properties={"note": TOKEN}), hers(2), other(1), other(2)])
    await eventually(lambda: _counts(router, {("parked", ""): 4}))
    calls.open.clear()
    erasing = stage.order(at_destinations=True)
    await tell(router.bus, erasing)
    await eventually(lambda: len(calls.taken) == 1)
    await asyncio.to_thread(router.process.kill)
    calls.open.set()
    await asyncio.to_thread(router.process.start)
    steps = by_store(await stage.consent.reported(erasing, SERVICE))
    assert steps == {"parked_deliveries": (FINISHED, 2), "destination:crm": (FINISHED, 1)}
    assert len(calls.taken) == 2
    assert len({key for _, _, _, key in calls.taken}) == 1
    await eventually(lambda: _nothing_kept(stage))
    assert await stage.planted() == {}
    assert await router.counts("crm") == {("parked", ""): 2, ("suppressed", "suppressed"): 2}


async def test_killed_before_it_could_report_it_reports_all_that_it_did(stage: Stage, calls: Calls) -> None:
    """At the other points: what was erased is not reported yet, the call is made and not reported yet."""
    router = stage.router
    await apply(stage, calls, "crm", retry=RetryPolicy(initial_seconds=600, max_seconds=600))
    router.hook.always("crm", 503)
    await router.publish([hers(1), hers(2), other(1)])
    await eventually(lambda: _counts(router, {("parked", ""): 3}))
    stage.consent.away = True
    erasing = stage.order(at_destinations=True)
    await tell(router.bus, erasing)
    await eventually(lambda: stage.consent.calls > 1 and len(calls.taken) == 1)
    for _ in range(2):
        await asyncio.to_thread(router.process.kill)
        await asyncio.to_thread(router.process.start)
    stage.consent.away = False
    steps = by_store(await stage.consent.reported(erasing, SERVICE))
    assert steps == {"parked_deliveries": (FINISHED, 2), "destination:crm": (FINISHED, 1)}
    await eventually(lambda: _nothing_kept(stage))
    assert await router.counts("crm") == {("parked", ""): 1, ("suppressed", "suppressed"): 2}


async def test_killed_again_and_again_under_many_orders_every_person_is_deleted(stage: Stage, calls: Calls) -> None:
    router = stage.router
    await apply(stage, calls, "crm")
    people = [f"{TOKEN}-{number}" for number in range(60)]
    orders = [stage.order(("user_id", person), at_destinations=True) for person in people]
    await tell(router.bus, *orders)
    for made in (1, 15, 40):
        await eventually(lambda made=made: len(calls.taken) >= made)
        await asyncio.to_thread(router.process.kill)
        await asyncio.to_thread(router.process.start)
    for each in orders:
        steps = by_store(await stage.consent.reported(each, SERVICE, within=60))
        assert steps == {"parked_deliveries": (FINISHED, 0), "destination:crm": (FINISHED, 1)}
    told = Counter(body["subjects"][0]["id"] for _, _, body, _ in calls.taken)
    assert set(told) == set(people)
    await eventually(lambda: _nothing_kept(stage))
    assert await stage.planted() == {}


def _running(stage: Stage, order: privacy_pb2.PrivacyOrder, detail: str) -> bool:
    steps = [step for store, step in stage.consent.so_far(order, SERVICE).items() if store.startswith("destination:crm")]
    return [(step.status, step.detail) for step in steps] == [(RUNNING, detail)]


async def _nothing_kept(stage: Stage) -> bool:
    return await stage.rows("deletion_orders") == await stage.rows("deletions") == 0


async def _counts(router: Any, expected: dict[tuple[str, str], int]) -> bool:
    return bool(await router.counts("crm") == expected)
