"""One suite of real services for all end-to-end tests that a process runs; every test uses people of its own, so that none sees another's
events. It ends with the last of them: six idle services take time from the tests that follow."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web
from segment.analytics import Client

from cdi.collector.v1 import collector_service_pb2, source_pb2
from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi.enrichment.v1 import enrichment_service_pb2, tracking_plan_pb2
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.suite import Suite
from tests.e2e.steps import WORKSPACE, WRITE_KEY, Endpoint

PLAN = '{"properties": {"properties": {"required": ["order_id"], "properties": {"total": {"type": "number"}}}}}'


@pytest.fixture(scope="package")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    settings = {"CDI_LOG_LEVEL": "INFO"}
    names = ("collector", "enrichment", "identity", "consent", "router", "warehouse-loader")
    with Suite(tmp_path_factory.mktemp("suite"), sample_ratio=0.0, durable=False, environment=dict.fromkeys(names, settings)) as running:
        yield running


@pytest.fixture(scope="package")
async def peers(suite: Suite) -> AsyncIterator[Peers]:
    async with connect_peers(suite.endpoints) as connected:
        yield connected


@pytest.fixture(scope="package")
async def endpoint() -> AsyncIterator[Endpoint]:
    recorder = Endpoint()
    application = web.Application(client_max_size=16 * 1024 * 1024)
    application.router.add_post("/", recorder.receive)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield recorder
    await runner.cleanup()


@pytest.fixture(scope="package")
async def shop(peers: Peers, endpoint: Endpoint) -> Peers:
    """The suite with a source, a tracking plan, two purposes and one webhook that needs ``advertising``."""
    source = source_pb2.Source(workspace_id=WORKSPACE, source_id="web", write_keys=[WRITE_KEY])
    await ask((await peers.sources()).ApplySource, collector_service_pb2.ApplySourceRequest(source=source))
    for name, policy in (("analytics", purpose_pb2.DEFAULT_POLICY_ALLOW), ("advertising", purpose_pb2.DEFAULT_POLICY_REQUIRE)):
        purpose = purpose_pb2.Purpose(workspace_id=WORKSPACE, name=name, default_policy=policy)
        await ask((await peers.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
    plan = tracking_plan_pb2.TrackingPlan(
        workspace_id=WORKSPACE,
        name="shop",
        source_ids=["web"],
        rules=[tracking_plan_pb2.EventRule(type="track", event="Order Completed", json_schema=PLAN)],
        unplanned_events=tracking_plan_pb2.VIOLATION_POLICY_FORWARD,
        violations=tracking_plan_pb2.VIOLATION_POLICY_BLOCK,
    )
    request = enrichment_service_pb2.ApplyTrackingPlanRequest(tracking_plan=plan)
    await ask((await peers.enrichment()).ApplyTrackingPlan, request)
    destination = destination_pb2.Destination(
        workspace_id=WORKSPACE,
        name="ads",
        enabled=True,
        purposes=["advertising"],
        retry=destination_pb2.RetryPolicy(initial_seconds=0.2, max_seconds=1.0),
        webhook=destination_pb2.Webhook(url=endpoint.url, timeout_seconds=5.0),
    )
    await ask((await peers.router()).ApplyDestination, router_service_pb2.ApplyDestinationRequest(destination=destination))
    return peers


@pytest.fixture
def prefix() -> str:
    """Ids of this test begin with it."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def sdk(suite: Suite) -> Iterator[Callable[[], Client]]:
    """Makes clients of the unmodified SDK; they are flushed and closed at the end."""
    made: list[Client] = []

    def make() -> Client:
        client = Client(WRITE_KEY, host=suite.http_url, max_queue_size=100_000, upload_size=50, upload_interval=0.05, max_retries=60)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown()
