"""Consent as processes: two replicas that the tests of a module share, and clients that speak to a replica."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest

from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_cli.traces.receiver import SpanReceiver
from cdi_runtime.bus import Bus, connect
from cdi_testing.plugin import MigratedDatabases

Client = Callable[[ServiceProcess], ConsentServiceStub]


@dataclass(frozen=True)
class Replicas:
    """Two replicas over one database, with a bus and a receiver of spans; tests keep apart by workspace."""

    one: ServiceProcess
    two: ServiceProcess
    nats: NatsServer
    spans: SpanReceiver


@pytest.fixture(scope="module")
def module_database_url(migrated_database: MigratedDatabases) -> str:
    """URL of a migrated database that only this module uses."""
    return migrated_database("consent")


@pytest.fixture(scope="module")
def replicas(module_nats: NatsServer, module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    directory = tmp_path_factory.mktemp("consent")
    spans = SpanReceiver(directory / "spans")
    spans.start()
    environment = {
        "CDI_NATS_URL": module_nats.url,
        "CDI_DATABASE_URL": module_database_url,
        "CDI_TRACE_SAMPLE_RATIO": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{spans.address}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    one, two = (ServiceProcess("consent", environment, directory, name=f"consent-{number}") for number in (1, 2))
    with one, two:
        yield Replicas(one, two, module_nats, spans)
    spans.stop()


@pytest.fixture
def consent(replicas: Replicas) -> ServiceProcess:
    """One replica, which the test leaves as it is."""
    return replicas.one


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Makes a stub for a replica; its channel is closed at the end of the test."""
    channels: list[grpc.aio.Channel] = []

    def make(process: ServiceProcess) -> ConsentServiceStub:
        # With its own connection: channels that share one also share its pause after a failure, for as long as a killed one was away.
        channels.append(grpc.aio.insecure_channel(process.grpc, options=[("grpc.use_local_subchannel_pool", 1)]))
        return ConsentServiceStub(channels[-1])

    yield make
    for channel in channels:
        await channel.close(grace=None)


@pytest.fixture
async def bus(replicas: Replicas) -> AsyncIterator[Bus]:
    """The bus of the replicas."""
    async with connect(replicas.nats.url, "test") as made:
        yield made
