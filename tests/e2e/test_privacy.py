"""A person is erased while events flow; the streams are replayed; nothing of the person comes back anywhere."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cdi.collector.v1 import collector_service_pb2, source_pb2
from cdi.consent.v1 import privacy_pb2, privacy_service_pb2
from cdi.enrichment.v1 import enrichment_service_pb2, tracking_plan_pb2
from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.suite import Suite
from cdi_kernel.faults import Unavailable
from cdi_testing import eventually
from tests.e2e.privacy_stores import (
    DESTINATIONS,
    TOKEN,
    WORKSPACE,
    nothing_planted,
    planted_in_databases,
    planted_in_files,
    replay,
    replay_to_destinations,
)

WRITE_KEY = "privacy-key"
PLAN = '{"properties": {"properties": {"required": ["order_id"]}}}'
HER_USER, HER_DEVICE, HER_MAIL = f"{TOKEN}-user", f"{TOKEN}-device", f"{TOKEN}@example.com"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite of its own: the test stops services and takes their positions away."""
    environment = {
        "consent": {"CDI_PRIVACY_SECOND_LOOK_SECONDS": "1"},
        "warehouse-loader": {"CDI_REWRITE_AFTER_SECONDS": "0"},
    }
    with Suite(tmp_path_factory.mktemp("privacy"), sample_ratio=0.0, durable=False, environment=environment) as running:
        yield running


async def test_an_erased_person_stays_erased(suite: Suite) -> None:
    async with connect_peers(suite.endpoints) as peers, hook() as (url, deleted, arrived):
        await arrange(peers, url)
        async with flowing(suite):
            await post(suite, hers(0))
            await eventually(lambda: _holds(suite, "warehouse.duckdb"), within=60)
            await eventually(lambda: _loaded(suite, peers), within=60)
            assert {name for name in await planted_in_databases(suite) if name.startswith("cdi_identity")}
            request_id = await erase(peers)
            # What names her comes after the answer and is suppressed. That the device is hers too, consent knows once identity has said so.
            await post(suite, [event for event in hers(1) if "userId" in event])
            await told(peers, request_id)
            await post(suite, [event for event in hers(1) if "userId" not in event])
            await finished(peers, request_id)
            assert deleted == sorted([HER_DEVICE, HER_MAIL, HER_USER])
        await nothing_planted(suite)
        before = await suppressed(peers)
        await replay(suite)
        await nothing_planted(suite)
        after = await suppressed(peers)
        # Both batches of hers came again, the copies as duplicates; the warehouse met what was enriched and rejected before the order.
        assert after["enrichment"] - before["enrichment"] == len([*hers(0), *hers(1)])
        assert after["warehouse:main"] - before["warehouse:main"] == len(hers(0)) - 1
        assert after["rejected"] - before["rejected"] == 1
        taken = len(arrived)
        copied = await replay_to_destinations(suite)
        await nothing_planted(suite)
        last = await suppressed(peers)
        for sink in ("destination:waits", "destination:refuses", "warehouse:main"):
            assert last[sink] - after[sink] == len(hers(0)) - 1, sink
        assert len(arrived) == taken, "nothing of hers was sent again"
        # Of the first time the router remembers what became of them, of the copies that they were not sent.
        assert await outcomes(peers, copied) == {
            "waits": {outcome_pb2.OUTCOME_SUPPRESSED: 2 * (len(hers(0)) - 1)},
            "refuses": {outcome_pb2.OUTCOME_DEAD_LETTERED: len(hers(0)) - 1, outcome_pb2.OUTCOME_SUPPRESSED: len(hers(0)) - 1},
        }


async def arrange(peers: Peers, url: str) -> None:
    source = source_pb2.Source(workspace_id=WORKSPACE, source_id="web", write_keys=[WRITE_KEY])
    await ask((await peers.sources()).ApplySource, collector_service_pb2.ApplySourceRequest(source=source))
    plan = tracking_plan_pb2.TrackingPlan(
        workspace_id=WORKSPACE, name="shop", source_ids=["web"], violations=tracking_plan_pb2.VIOLATION_POLICY_BLOCK,
        unplanned_events=tracking_plan_pb2.VIOLATION_POLICY_FORWARD,
        rules=[tracking_plan_pb2.EventRule(type="track", event="Order Completed", json_schema=PLAN)],
    )  # fmt: skip
    await ask((await peers.enrichment()).ApplyTrackingPlan, enrichment_service_pb2.ApplyTrackingPlanRequest(tracking_plan=plan))
    # What is not answered waits, and what is refused is given up: both are stored by the router.
    for name, path in zip(DESTINATIONS, ("503", "400"), strict=True):
        destination = destination_pb2.Destination(
            workspace_id=WORKSPACE, name=name, enabled=True,
            webhook=destination_pb2.Webhook(url=f"{url}/{path}", deletion=destination_pb2.WebhookDeletion(url=f"{url}/delete")),
        )  # fmt: skip
        await ask((await peers.router()).ApplyDestination, router_service_pb2.ApplyDestinationRequest(destination=destination))


@asynccontextmanager
async def hook() -> AsyncIterator[tuple[str, list[str], list[str]]]:
    """An endpoint that takes delete calls and the events of others, but not hers; the ids that it was told to delete, sorted, and the paths
    to which something of hers came."""
    deleted: list[str] = []
    arrived: list[str] = []

    async def receive(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if request.path == "/delete":
            deleted[:] = sorted({*deleted, *(each["id"] for each in body["subjects"])})
            return web.Response()
        if TOKEN not in json.dumps(body):
            return web.Response()
        arrived.append(request.path)
        return web.Response(status=int(request.path.strip("/")))

    application = web.Application(client_max_size=16 * 1024 * 1024)
    application.router.add_post("/{tail:.*}", receive)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", deleted, arrived
    await runner.cleanup()


def hers(number: int) -> Sequence[dict[str, Any]]:
    """Events of every kind, one of which breaks the plan, with the token in ids, traits, properties and context."""
    common = {"anonymousId": HER_DEVICE, "context": {"page": {"url": f"https://shop.example/{TOKEN}"}}}
    known = common | {"userId": HER_USER}
    events: list[dict[str, Any]] = [
        {"type": "page", "name": "Home", "properties": {"title": TOKEN}, **common},
        {"type": "identify", "traits": {"email": HER_MAIL, "name": TOKEN}, **known},
        {"type": "track", "event": "Order Completed", "properties": {"order_id": "o", "note": TOKEN}, **known},
        {"type": "track", "event": "Order Completed", "properties": {"note": TOKEN}, **known},
        {"type": "track", "event": "Browsed", "userId": HER_USER, "properties": {"note": TOKEN}},
    ]
    return [event | {"messageId": f"hers-{number}-{place}"} for place, event in enumerate(events)]


async def post(suite: Suite, batch: Sequence[dict[str, Any]]) -> None:
    auth = {"Authorization": aiohttp.encode_basic_auth(WRITE_KEY, "")}
    async with aiohttp.ClientSession(headers=auth) as session, session.post(f"{suite.http_url}/v1/batch", json={"batch": batch}) as answer:
        assert answer.status == 200


@asynccontextmanager
async def flowing(suite: Suite) -> AsyncIterator[None]:
    """Events of others, batch after batch, for the time of the block; a machine with nothing else to do would take thousands of them."""
    ending = asyncio.get_running_loop().create_future()

    async def feed() -> None:
        number = 0
        while not ending.done():
            number += 1
            people = [f"other-{number}-{place}" for place in range(10)]
            await post(suite, [{"type": "track", "event": "Browsed", "userId": one, "messageId": one} for one in people])
            await asyncio.wait([ending], timeout=0.05)

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        ending.set_result(None)
        await feeding


async def erase(peers: Peers) -> str:
    person = privacy_service_pb2.PrivacyPerson(subjects=[{"type": "user_id", "id": HER_USER}])
    request = privacy_service_pb2.CreatePrivacyRequestsRequest(
        workspace_id=WORKSPACE, verb=privacy_pb2.PRIVACY_VERB_SUPPRESS_WITH_DELETE, people=[person]
    )
    answer = await ask((await peers.privacy()).CreatePrivacyRequests, request)
    return str(answer.results[0].request_id)


async def told(peers: Peers, request_id: str) -> None:
    """Waits until the services have been told about all ids that are hers."""
    asked = privacy_service_pb2.GetPrivacyRequestRequest(workspace_id=WORKSPACE, request_id=request_id)

    async def running() -> bool:
        status = (await ask((await peers.privacy()).GetPrivacyRequest, asked)).request.status
        return bool(status != privacy_pb2.PRIVACY_STATUS_INITIALIZED)

    await eventually(running, within=60)


async def finished(peers: Peers, request_id: str) -> None:
    """Waits until every store of every service has reported, twice."""
    asked = privacy_service_pb2.GetPrivacyRequestRequest(workspace_id=WORKSPACE, request_id=request_id)

    async def done() -> bool:
        request = (await ask((await peers.privacy()).GetPrivacyRequest, asked)).request
        states = {f"{step.service}/{step.store}": privacy_pb2.PrivacyStatus.Name(step.status) for step in request.steps}
        assert request.status == privacy_pb2.PRIVACY_STATUS_FINISHED, states
        return True

    await eventually(done, within=90)


async def suppressed(peers: Peers) -> Counter[str]:
    """Suppressed events by sink; services that were started anew may not be reached at once."""
    found: list[Counter[str]] = []

    async def asked() -> bool:
        try:
            found.append(await _suppressed(peers))
        except Unavailable:
            return False
        return True

    await eventually(asked)
    return found[0]


async def _suppressed(peers: Peers) -> Counter[str]:
    enriched = await ask((await peers.enrichment()).CountOutcomes, enrichment_service_pb2.CountOutcomesRequest())
    loaded = await ask((await peers.warehouse()).CountOutcomes, warehouse_service_pb2.CountOutcomesRequest())
    delivered = await ask((await peers.router()).CountOutcomes, router_service_pb2.CountOutcomesRequest())
    counts: Counter[str] = Counter()
    for each in [*enriched.counts, *loaded.counts, *delivered.counts]:
        if each.outcome == outcome_pb2.OUTCOME_SUPPRESSED:
            counts[each.sink] += each.events
    return counts


async def outcomes(peers: Peers, events: Sequence[tuple[int, Event]]) -> dict[str, Counter[int]]:
    """What the router says of events, each with the sequence of its message in ENRICHED: how many of each outcome, by destination."""
    counts: dict[str, Counter[int]] = {name: Counter() for name in DESTINATIONS}
    for sequence, event in events:
        request = router_service_pb2.ExplainDeliveryRequest(event=event.SerializeToString(), enriched_sequence=sequence)
        for each in (await ask((await peers.router()).ExplainDelivery, request)).explanations:
            counts[each.destination][each.outcome] += 1
    return counts


async def _holds(suite: Suite, name: str) -> bool:
    return any(file.startswith(name) for file in planted_in_files(suite))


async def _loaded(suite: Suite, peers: Peers) -> bool:
    """The router stores what waits and what was refused, and the rejected event is in its table."""
    found = await planted_in_databases(suite)
    assert {"cdi_router.parked_deliveries", "cdi_router.dead_deliveries"} <= set(found), found
    return True
