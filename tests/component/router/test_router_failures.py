"""What failures around the router do: withdrawn consent, dead neighbours, kill -9, replicas."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from cdi.consent.v1 import consent_service_pb2 as consent_pb
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.consent.v1.purpose_pb2 import Decision, Purpose
from cdi_cli.embedded import ServiceProcess
from cdi_testing import builders, eventually
from cdi_testing.plugin import MigratedDatabases, StartService
from cdi_testing.promises import WITHDRAWAL_KNOWN_SECONDS

DENIED = ("filtered", "consent_denied")


class ConsentDesk:
    """Grants and withdraws, at the real consent service."""

    def __init__(self, process: ServiceProcess, stub: ConsentServiceStub) -> None:
        self.process = process
        self._stub = stub

    async def decide(self, workspace: str, people: Sequence[int], granted: bool) -> None:
        purpose = Purpose(workspace_id=workspace, name="advertising")
        await self._stub.ApplyPurpose(consent_pb.ApplyPurposeRequest(purpose=purpose))
        decisions = [
            Decision(
                workspace_id=workspace,
                subject_type="user_id",
                subject_id=f"user-{person}",
                purpose="advertising",
                granted=granted,
                proof="t",
            )
            for person in people
        ]
        for decision in decisions:
            decision.decide_time.GetCurrentTime()

        async def recorded() -> bool:
            answer = await self._stub.RecordDecisions(consent_pb.RecordDecisionsRequest(decisions=decisions))
            return all(result.status.code == 0 for result in answer.results)

        await eventually(recorded)

    async def need(self, workspace: str, name: str, destinations: Sequence[str]) -> None:
        """Makes a purpose name destinations."""
        purpose = Purpose(workspace_id=workspace, name=name, destinations=destinations)
        await self._stub.ApplyPurpose(consent_pb.ApplyPurposeRequest(purpose=purpose))


@pytest.fixture
async def consent(module_consent: ServiceProcess) -> Any:
    """The module's, which the test leaves running."""
    async with grpc.aio.insecure_channel(module_consent.grpc) as channel:
        yield ConsentDesk(module_consent, ConsentServiceStub(channel))


@pytest.fixture
async def own_consent(start_service: StartService) -> Any:
    """The test's own, to be killed."""
    process = await asyncio.to_thread(start_service, "consent")
    async with grpc.aio.insecure_channel(process.grpc) as channel:
        yield ConsentDesk(process, ConsentServiceStub(channel))


def agreed(events: Sequence[Any]) -> Sequence[Any]:
    """As enrichment saw them: everybody had agreed."""
    for event in events:
        event.consent.granted_purposes.append("advertising")
    return events


async def test_withdrawn_consent_stops_what_is_queued(start_router: Any, consent: ConsentDesk, journey: Any, hook: Any) -> None:
    router = await start_router({"CDI_CONSENT_TARGET": consent.process.grpc})
    await consent.decide(router.workspace, range(10), granted=True)
    await router.apply("ads", purposes=["advertising"])
    await router.publish(agreed(journey(10, 2)))
    await eventually(lambda: len(hook.taken("ads")) == 20)

    # Person 0 alone fails and is parked; then everybody fails, so the rest is held in the stream.
    hook.always("ads", 503)
    parked = agreed([builders.track(user_id="user-0", message_id="0:100", partitions=4, workspace_id=router.workspace)])
    sequences = await router.publish(parked)
    await eventually(lambda: _holds(router.counts("ads"), {("delivered", ""): 20, ("parked", ""): 1}))
    held = agreed([event for event in journey(10, 5) if int(event.message_id.split(":")[1]) >= 2])
    await router.publish(held)
    await consent.decide(router.workspace, [0, 1], granted=False)
    withdrawn = asyncio.get_running_loop().time()

    async def back_when_the_withdrawal_is_known(_: Sequence[str]) -> int:
        return 200 if asyncio.get_running_loop().time() - withdrawn > WITHDRAWAL_KNOWN_SECONDS else 503

    hook.answers["ads"] = back_when_the_withdrawal_is_known

    expected = {("delivered", ""): 20 + 8 * 3, DENIED: 1 + 2 * 3}
    await eventually(lambda: _holds(router.counts("ads"), expected))
    assert not any(message_id.startswith(("0:", "1:")) for message_id in hook.taken("ads")[20:])
    told = (await router.explain(parked[0], sequences["0:100"]))["ads"]
    assert (told.reason, "advertising" in told.description) == ("consent_denied", True)


async def test_a_withdrawal_stops_a_round_that_is_under_way(start_router: Any, consent: ConsentDesk, journey: Any, hook: Any) -> None:
    router = await start_router({"CDI_CONSENT_TARGET": consent.process.grpc})
    await consent.decide(router.workspace, range(1), granted=True)
    arrived: list[float] = []

    async def slowly(_: Sequence[str]) -> int:
        arrived.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.4)
        return 200

    hook.answers["ads"] = slowly
    await router.apply("ads", purposes=["advertising"], webhook={"max_batch_events": 1, "concurrency": 1})
    await router.publish(agreed(journey(1, 30)))
    await eventually(lambda: len(arrived) >= 4)
    await consent.decide(router.workspace, [0], granted=False)
    withdrawn = asyncio.get_running_loop().time()
    await eventually(lambda: _all_ended(router.counts("ads"), 30))
    assert len(hook.taken("ads")) < 30
    assert max(arrived) - withdrawn < WITHDRAWAL_KNOWN_SECONDS
    counts = await router.counts("ads")
    assert counts["filtered", "consent_denied"] == 30 - len(hook.taken("ads"))


async def test_a_purpose_may_name_the_destination(start_router: Any, consent: ConsentDesk, journey: Any, hook: Any) -> None:
    router = await start_router({"CDI_CONSENT_TARGET": consent.process.grpc})
    await router.apply("ads")
    await router.apply("other")
    await consent.need(router.workspace, "advertising", [f"ads-{router.workspace}"])

    published = 0

    async def is_denied() -> bool:
        nonlocal published
        await router.publish(journey(1, 1))
        published += 1
        return DENIED in await router.counts("ads")

    await eventually(is_denied)
    await eventually(lambda: _all_ended(router.counts("ads"), published))
    requests, denied = len(hook.requests["ads"]), (await router.counts("ads"))[DENIED]
    sequences = await router.publish(events := journey(5, 2))
    await eventually(lambda: _all_ended(router.counts("ads"), published + 10))
    assert (len(hook.requests["ads"]), (await router.counts("ads"))[DENIED]) == (requests, denied + 10)
    await eventually(lambda: len(set(hook.taken("other"))) == 10)
    told = (await router.explain(events[0], sequences[events[0].message_id]))["ads"]
    assert (told.reason, list(told.missing_purposes)) == ("consent_denied", ["advertising"])


async def test_without_an_answer_of_consent_since_the_start_everything_waits(
    start_router: Any, own_consent: ConsentDesk, journey: Any, hook: Any
) -> None:
    own_consent.process.kill()
    router = await start_router({"CDI_CONSENT_TARGET": own_consent.process.grpc})
    await router.apply("free")
    await router.publish(journey(3, 1))
    assert await router.counts("free") == {}
    await asyncio.to_thread(own_consent.process.start)
    await eventually(lambda: _holds(router.counts("free"), {("delivered", ""): 3}))


async def test_events_without_consent_never_ask(router: Any, journey: Any, hook: Any) -> None:
    # Nobody has told consent of a purpose: what the event itself denies needs no answer of now.
    await router.apply("ads", purposes=["advertising"])
    await router.publish(journey(5, 2))
    await eventually(lambda: _holds(router.counts("ads"), {DENIED: 10}))
    assert hook.taken("ads") == []


async def test_consent_away_holds_and_nothing_is_lost(
    start_router: Any, own_consent: ConsentDesk, journey: Any, hook: Any, in_order: Any
) -> None:
    router = await start_router({"CDI_CONSENT_TARGET": own_consent.process.grpc})
    await own_consent.decide(router.workspace, range(10), granted=True)
    await router.apply("ads", purposes=["advertising"])
    await router.apply("plain")
    own_consent.process.kill()
    await router.publish(agreed(journey(10, 5)))
    await eventually(lambda: "wait" in _reason(router.process))
    # Also where no purpose is asked for: nobody knows whether the person is suppressed.
    assert hook.taken("ads") == hook.taken("plain") == []
    await asyncio.to_thread(own_consent.process.start)
    for name in ("ads", "plain"):
        await eventually(lambda name=name: len(hook.taken(name)) == 50)
        assert in_order(hook.taken(name))


def _reason(process: ServiceProcess) -> str:
    """Why a process is not ready; empty while it is."""
    try:
        with urllib.request.urlopen(f"http://{process.ops}/readyz", timeout=2):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()


async def test_kill_in_the_middle_loses_nothing_and_keeps_the_order(start_router: Any, journey: Any, in_order: Any, hook: Any) -> None:
    async def answer(message_ids: Sequence[str]) -> int:
        await asyncio.sleep(0.01)
        # Every 13th event of person 3 fails at first, so that some wait in Postgres when the router dies.
        return 500 if len(hook.requests["crm"]) < 60 and any(m.startswith("3:") for m in message_ids) else 200

    hook.answers["crm"] = answer
    router = await start_router()
    await router.apply("crm", webhook={"max_batch_events": 5})
    events = journey(20, 60)
    for start in range(0, 600, 100):
        await router.publish(events[start : start + 100])
    await eventually(lambda: len(hook.taken("crm")) > 100)
    await asyncio.to_thread(router.process.kill)
    for start in range(600, 1_200, 100):
        await router.publish(events[start : start + 100])
    await asyncio.to_thread(router.process.start)
    await eventually(lambda: len(hook.taken("crm")) == 1_200)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 1_200}))


async def test_a_stop_waits_for_a_retry_that_is_under_way(start_router: Any, journey: Any, hook: Any) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: Sequence[str]) -> int:
        if not hook.requests["crm"]:
            return 500
        asked.set()
        await may_answer.wait()
        return 200

    hook.answers["crm"] = answer
    router = await start_router()
    await router.apply("crm")
    await router.publish(journey(1, 1))
    await asyncio.wait_for(asked.wait(), 30)
    router.process.terminate()
    ending = asyncio.create_task(asyncio.to_thread(router.process.wait))
    # It has stopped all else when it is no longer ready, and the request is what is left.
    await eventually(lambda: "stopping" in _reason(router.process))
    may_answer.set()
    assert await ending == 0
    await asyncio.to_thread(router.process.start)
    await eventually(lambda: _holds(router.counts("crm"), {("delivered", ""): 1}))
    assert [request.status for request in hook.requests["crm"]] == [500, 200]


async def test_two_replicas_share_and_take_over(
    start_router: Any, migrated_database: MigratedDatabases, journey: Any, in_order: Any, hook: Any
) -> None:
    async def answer(_: Sequence[str]) -> int:
        await asyncio.sleep(0.02)
        return 200

    hook.answers["crm"] = answer
    environment = {"CDI_DATABASE_URL": await asyncio.to_thread(migrated_database, "router")}
    first = await start_router(environment, name="router-1")
    second = await start_router(environment, name="router-2")
    await first.apply("crm", webhook={"max_batch_events": 10})
    events = journey(20, 40)
    for start in range(0, 400, 50):
        await first.publish(events[start : start + 50])
    await eventually(lambda: len(hook.taken("crm")) > 100)
    await asyncio.to_thread(second.process.kill)
    for start in range(400, 800, 50):
        await first.publish(events[start : start + 50])
    await eventually(lambda: len(hook.taken("crm")) == 800)
    assert in_order(hook.taken("crm"))
    await eventually(lambda: _holds(first.counts("crm"), {("delivered", ""): 800}))


async def _all_ended(counts: Any, events: int) -> bool:
    return sum((await counts).values()) == events


async def _holds(counts: Any, expected: dict[tuple[str, str], int]) -> bool:
    found = {key: events for key, events in (await counts).items() if events}
    assert found == expected
    return True
