"""A router, a real HTTP endpoint for it to deliver to, and a way to put enriched events before it."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import pytest
from aiohttp import web

from cdi.consent.v1 import consent_service_pb2_grpc
from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import Event
from cdi.router.v1 import router_service_pb2 as pb
from cdi.router.v1.destination_pb2 import Destination, RetryPolicy, Webhook
from cdi.router.v1.router_service_pb2_grpc import RouterServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel import envelope, topology
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders
from cdi_testing.plugin import MigratedDatabases, StartService
from tests.component.privacy_side import Consents, privacy_side
from tests.component.router.privacy_stage import Calls, Stage, taking_calls

PARTITIONS = 4
QUICK = RetryPolicy(initial_seconds=0.2, max_seconds=0.5)

_SOURCES = count(1)
_WORKSPACES = count(1)

Answering = Callable[[Sequence[str]], Awaitable[int]]


@dataclass
class Request:
    headers: Mapping[str, str]
    body: bytes
    events: list[dict[str, Any]]
    status: int


@dataclass
class Hook:
    """An HTTP endpoint that answers as its test says: ``answer`` gets the message ids of a request and gives the status."""

    url: str = ""
    requests: dict[str, list[Request]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, Answering] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        events = json.loads(body)["events"]
        name = request.path.strip("/")
        status = await self.answers[name]([event["messageId"] for event in events]) if name in self.answers else 200
        self.requests[name].append(Request(request.headers, body, events, status))
        return web.Response(status=status, text="" if status == 200 else "the reason", headers={"Location": "/elsewhere"})

    def always(self, name: str, status: int) -> None:
        async def answer(_: Sequence[str]) -> int:
            return status

        self.answers[name] = answer

    def taken(self, name: str) -> list[str]:
        """Message ids in the order of their first arrival."""
        taken = [event["messageId"] for request in self.requests[name] if request.status == 200 for event in request.events]
        return list(dict.fromkeys(taken))


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{name}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}"
    yield made
    await runner.cleanup()


@dataclass
class Router:
    """What the tests do with a router."""

    process: ServiceProcess
    stub: RouterServiceStub
    bus: Bus
    hook: Hook
    workspace: str

    def _full(self, name: str) -> str:
        """Destinations of other tests share the router, and counts are per name."""
        return f"{name}-{self.workspace}"

    async def apply(self, name: str, *, path: str | None = None, webhook: Mapping[str, Any] | None = None, **fields: Any) -> Destination:
        settings = {"url": f"{self.hook.url}/{path or name}"} | dict(webhook or {})
        values = {"workspace_id": self.workspace, "name": self._full(name), "enabled": True, "retry": QUICK} | fields
        request = pb.ApplyDestinationRequest(destination=Destination(webhook=Webhook(**settings), **values))
        return (await self.stub.ApplyDestination(request)).destination

    async def publish(self, events: Sequence[Event]) -> dict[str, int]:
        """Publishes events as enrichment does, one message per partition; returns the sequences by message id."""
        partitions: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            event.workspace_id = self.workspace
            partitions[event.partition].append(event)
        sequences: dict[str, int] = {}
        for partition, part in partitions.items():
            source = next(_SOURCES)
            headers = {envelope.EVENTS: str(len(part)), envelope.SOURCE_SEQUENCE: str(source), envelope.SCHEMA: envelope.EVENT_BATCH_SCHEMA}
            payload = builders.event_batch(part).SerializeToString()
            ack = await self.bus.publish(topology.enriched(partition), payload, message_id=f"enriched-{source}", headers=headers)
            sequences |= {event.message_id: ack.sequence for event in part}
        return sequences

    async def counts(self, name: str) -> dict[tuple[str, str], int]:
        """Events per outcome and reason."""
        counts = (await self.stub.CountOutcomes(pb.CountOutcomesRequest())).counts
        return {
            (outcome_pb2.Outcome.Name(count.outcome).removeprefix("OUTCOME_").lower(), count.reason): count.events
            for count in counts
            if count.sink == f"destination:{self._full(name)}"
        }

    async def delivered(self, name: str) -> int:
        return (await self.counts(name)).get(("delivered", ""), 0)

    async def explain(self, event: Event, sequence: int) -> dict[str, pb.DeliveryExplanation]:
        request = pb.ExplainDeliveryRequest(event=event.SerializeToString(), enriched_sequence=sequence)
        return {found.destination.partition("-")[0]: found for found in (await self.stub.ExplainDelivery(request)).explanations}

    async def dead(self, name: str) -> list[Any]:
        request = pb.ListDeadDeliveriesRequest(workspace_id=self.workspace, destination=self._full(name))
        return list((await self.stub.ListDeadDeliveries(request)).deliveries)


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    """An endpoint that takes delete calls."""
    async with taking_calls() as made:
        yield made


StartRouter = Callable[..., Awaitable[Router]]
Connect = Callable[[ServiceProcess, str], Awaitable[Router]]


@pytest.fixture
async def connect_router(hook: Hook) -> AsyncIterator[Connect]:
    """Clients of a router process; closed at the end of the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def made(process: ServiceProcess, nats_url: str) -> Router:
            bus = await stack.enter_async_context(connect(nats_url, "test"))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(process.grpc))
            return Router(process, RouterServiceStub(channel), bus, hook, f"w{next(_WORKSPACES)}")

        yield made


@pytest.fixture
async def start_router(
    request: pytest.FixtureRequest, start_service: StartService, fresh_nats: NatsServer, connect_router: Connect
) -> StartRouter:
    """Starts a router of the test's own, with the module's consent service unless the test names another."""

    async def start(environment: Mapping[str, str] | None = None, *, name: str | None = None) -> Router:
        settings = {"CDI_PARTITIONS": str(PARTITIONS), **(environment or {})}
        if "CDI_CONSENT_TARGET" not in settings:
            settings["CDI_CONSENT_TARGET"] = request.getfixturevalue("module_consent").grpc
        process = await asyncio.to_thread(start_service, "router", settings, name=name)
        return await connect_router(process, fresh_nats.url)

    return start


@pytest.fixture
async def stage(start_router: StartRouter, migrated_database: MigratedDatabases) -> AsyncIterator[Stage]:
    """A router of the test's own whose consent service the test plays."""
    consents = Consents()
    async with contextlib.AsyncExitStack() as stack:
        register = consent_service_pb2_grpc.add_ConsentServiceServicer_to_server
        consent, address = await stack.enter_async_context(privacy_side((register, consents)))
        database = migrated_database("router")
        router = await start_router({"CDI_CONSENT_TARGET": address, "CDI_DATABASE_URL": database})
        yield Stage(router, consent, consents, database)


@pytest.fixture(scope="module")
def module_consent(
    module_nats: NatsServer, migrated_database: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """One consent service for the tests of a module; they keep apart by workspace."""
    environment = {"CDI_NATS_URL": module_nats.url, "CDI_DATABASE_URL": migrated_database("consent")}
    with ServiceProcess("consent", environment, tmp_path_factory.mktemp("consent")) as process:
        yield process


@pytest.fixture(scope="module")
def module_router(
    module_nats: NatsServer,
    migrated_database: MigratedDatabases,
    tmp_path_factory: pytest.TempPathFactory,
    module_consent: ServiceProcess,
) -> Iterator[ServiceProcess]:
    """One router for the tests of a module that neither stop nor configure it."""
    environment = {
        "CDI_CONSENT_TARGET": module_consent.grpc,
        "CDI_NATS_URL": module_nats.url,
        "CDI_DATABASE_URL": migrated_database("router"),
        "CDI_PARTITIONS": str(PARTITIONS),
        "HOOK_SECRET": "s3cret",
        "HOOK_TOKEN": "Bearer t0ken",
    }
    with ServiceProcess("router", environment, tmp_path_factory.mktemp("router")) as process:
        yield process


@pytest.fixture
async def router(module_router: ServiceProcess, module_nats: NatsServer, connect_router: Connect) -> Router:
    return await connect_router(module_router, module_nats.url)


def journey(people: int, events: int, **fields: Any) -> list[Event]:
    """Events of several people in turn; the message id tells whose and which."""
    return [
        builders.track(user_id=f"user-{person}", message_id=f"{person}:{index}", partitions=PARTITIONS, **fields)
        for index in range(events)
        for person in range(people)
    ]


def in_order(message_ids: Sequence[str]) -> bool:
    """Whether each person's events are in the order of ``journey``."""
    last: dict[str, int] = defaultdict(lambda: -1)
    for message_id in message_ids:
        person, index = message_id.split(":")
        if int(index) <= last[person]:
            return False
        last[person] = int(index)
    return True


# Test modules are not a package, so what they share comes as fixtures.
@pytest.fixture(name="journey")
def _journey() -> Callable[..., list[Event]]:
    return journey


@pytest.fixture(name="in_order")
def _in_order() -> Callable[[Sequence[str]], bool]:
    return in_order
