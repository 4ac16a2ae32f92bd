"""Enrichment as a process beside real consent and identity, and what tests need to feed it and to look at its results."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

import grpc
import pytest

from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.enrichment.v1.enrichment_service_pb2 import CountOutcomesRequest
from cdi.enrichment.v1.enrichment_service_pb2_grpc import EnrichmentServiceStub
from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.event.v1.outcome_pb2 import Outcome
from cdi.event.v1.rejected_event_pb2 import RejectedBatch, RejectedEvent
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel import topology
from cdi_kernel.envelope import EVENT_BATCH_SCHEMA, EVENTS, SCHEMA
from cdi_kernel.faults import NotFound
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Message, Outgoing, connect
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import MigratedDatabases

PARTITIONS = 4


@dataclass
class Stage:
    """The three services and their bus. Tests share them: each has a workspace of its own and sees what has happened since its begin."""

    nats: NatsServer
    consent: ServiceProcess
    identity: ServiceProcess
    enrichment: ServiceProcess


class Run:
    """One test's view of the stage."""

    def __init__(self, stage: Stage, bus: Bus, channels: Mapping[str, grpc.aio.Channel], workspace: str) -> None:
        self.stage = stage
        self.bus = bus
        self.workspace = workspace
        self.plans = EnrichmentServiceStub(channels["enrichment"])
        self.consents = ConsentServiceStub(channels["consent"])
        self.identities = IdentityServiceStub(channels["identity"])
        self._before: dict[tuple[str, str], int] = {}
        self._first: dict[StreamName, int] = {}

    async def begin(self) -> None:
        """From now on counts and streams are this test's."""
        self._before = await self._all_counts()
        for stream in (StreamName.ENRICHED, StreamName.REJECTED):
            self._first[stream] = 1
            self._first[stream] += len(await self.stored(stream))

    async def collect(self, *batches: Sequence[Event], partition: int = 0) -> list[int]:
        """Publishes batches as the collector does, with the builders' workspace replaced by the test's; their sequences."""
        for event in chain(*batches):
            event.workspace_id = self.workspace if event.workspace_id == WORKSPACE else event.workspace_id
        outgoing = [
            Outgoing(
                topology.collected(partition),
                EventBatch(events=events).SerializeToString(),
                f"test-{uuid.uuid4()}",
                {SCHEMA: EVENT_BATCH_SCHEMA, EVENTS: str(len(events))},
            )
            for events in batches
        ]
        return [ack.sequence for ack in await self.bus.publish_all(outgoing)]

    async def stored(self, stream: StreamName) -> list[Message[bytes]]:
        """Every message of a stream since the begin."""
        messages: list[Message[bytes]] = []
        while True:
            try:
                messages.append(await self.bus.message(stream, self._first[stream] + len(messages)))
            except NotFound:
                return messages

    async def enriched(self) -> list[Event]:
        """Every enriched event, in the order of the stream."""
        return [event for message in await self.stored(StreamName.ENRICHED) for event in EventBatch.FromString(message.payload).events]

    async def rejected(self) -> list[RejectedEvent]:
        """Every rejected event, in the order of the stream."""
        return [event for message in await self.stored(StreamName.REJECTED) for event in RejectedBatch.FromString(message.payload).events]

    async def counts(self) -> dict[tuple[str, str], int]:
        """Events by outcome and reason."""
        now = await self._all_counts()
        return {key: events for key, total in now.items() if (events := total - self._before.get(key, 0))}

    async def handled(self, events: int) -> None:
        """Waits until so many events are done, and not one more."""

        async def done() -> bool:
            try:
                accepted = (await self.counts()).get(("accepted", ""), 0)
            except grpc.aio.AioRpcError:
                return False
            assert accepted <= events
            return accepted == events

        await eventually(done)

    async def _all_counts(self) -> dict[tuple[str, str], int]:
        response = await self.plans.CountOutcomes(CountOutcomesRequest())
        assert {count.sink for count in response.counts} <= {"enrichment"}
        return {(Outcome.Name(c.outcome).removeprefix("OUTCOME_").lower(), c.reason): c.events for c in response.counts}


@pytest.fixture(scope="module")
def stage(module_nats: NatsServer, migrated_database: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Consent, identity and enrichment, running."""
    directory = tmp_path_factory.mktemp("enrichment")

    def started(service: str, **environment: str) -> ServiceProcess:
        database = migrated_database(service)
        settings = {"CDI_NATS_URL": module_nats.url, "CDI_DATABASE_URL": database, "CDI_TRACE_SAMPLE_RATIO": "0", **environment}
        return ServiceProcess(service, settings, directory).start()

    with ExitStack() as stack:
        consent = stack.enter_context(started("consent"))
        identity = stack.enter_context(started("identity"))
        targets = {"CDI_CONSENT_TARGET": consent.grpc, "CDI_IDENTITY_TARGET": identity.grpc, "CDI_PARTITIONS": str(PARTITIONS)}
        enrichment = stack.enter_context(started("enrichment", **targets))
        yield Stage(module_nats, consent, identity, enrichment)


@pytest.fixture
async def run(stage: Stage) -> AsyncIterator[Run]:
    """The stage as one test sees it."""
    processes = {"enrichment": stage.enrichment, "consent": stage.consent, "identity": stage.identity}
    channels = {name: grpc.aio.insecure_channel(process.grpc) for name, process in processes.items()}
    async with connect(stage.nats.url, "test") as bus:
        made = Run(stage, bus, channels, f"workspace-{uuid.uuid4().hex[:8]}")
        await made.begin()
        yield made
    for channel in channels.values():
        await channel.close(grace=None)
