"""Enrichment as a process beside real consent and identity, and what tests need to feed it and to look at its results."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

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
from cdi_testing.plugin import StartService

PARTITIONS = 4


@dataclass
class Stage:
    """The three services and the bus of one test."""

    bus: Bus
    consent: ServiceProcess
    identity: ServiceProcess
    enrichment: ServiceProcess
    start: Callable[[str], ServiceProcess]
    plans: EnrichmentServiceStub
    consents: ConsentServiceStub
    identities: IdentityServiceStub

    async def collect(self, *batches: Sequence[Event], partition: int = 0) -> list[int]:
        """Publishes batches as the collector does; their sequences."""
        outgoing = [
            Outgoing(
                topology.collected(partition),
                EventBatch(events=events).SerializeToString(),
                f"test-{partition}-{events[0].message_id}-{number}-{id(events)}",
                {SCHEMA: EVENT_BATCH_SCHEMA, EVENTS: str(len(events))},
            )
            for number, events in enumerate(batches)
        ]
        return [ack.sequence for ack in await self.bus.publish_all(outgoing)]

    async def stored(self, stream: StreamName) -> list[Message[bytes]]:
        """Every message of a stream."""
        messages: list[Message[bytes]] = []
        while True:
            try:
                messages.append(await self.bus.message(stream, len(messages) + 1))
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
        response = await self.plans.CountOutcomes(CountOutcomesRequest())
        assert {count.sink for count in response.counts} <= {"enrichment"}
        return {(Outcome.Name(c.outcome).removeprefix("OUTCOME_").lower(), c.reason): c.events for c in response.counts}


@pytest.fixture
async def stage(fresh_nats: NatsServer, start_service: StartService) -> AsyncIterator[Stage]:
    """Consent, identity and enrichment, running."""
    consent, identity = start_service("consent"), start_service("identity")
    enrichment = start_service("enrichment", environment_of(consent, identity))
    channels = [grpc.aio.insecure_channel(service.grpc) for service in (enrichment, consent, identity)]
    async with connect(fresh_nats.url, "test") as bus:
        yield Stage(
            bus, consent, identity, enrichment, lambda name: start_service("enrichment", enrichment.environment, name=name),
            EnrichmentServiceStub(channels[0]), ConsentServiceStub(channels[1]), IdentityServiceStub(channels[2]),
        )  # fmt: skip
    for channel in channels:
        await channel.close(grace=None)


def environment_of(consent: ServiceProcess, identity: ServiceProcess) -> Mapping[str, str]:
    """Settings of enrichment beside two peers."""
    return {
        "CDI_CONSENT_TARGET": consent.grpc,
        "CDI_IDENTITY_TARGET": identity.grpc,
        "CDI_PARTITIONS": str(PARTITIONS),
        "CDI_TRACE_SAMPLE_RATIO": "0",
    }
