"""Identity services, and clients that speak to one or to several replicas of them."""

from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256

import asyncpg
import grpc
import pytest

from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_runtime.bus import Bus, connect
from cdi_testing.plugin import MigratedDatabases, StartService

from .profile_calls import Watch, Watching

WAREHOUSE_TOKEN = "identitys-token"
"""What the loader lets identity ask with."""

Client = Callable[[ServiceProcess], IdentityServiceStub]


async def empty(connection: asyncpg.Connection) -> None:
    """Empties the graph as an erasure does: replicas that remember people hear of it."""
    await connection.execute(
        """
        INSERT INTO workspaces (workspace_id, splits) SELECT DISTINCT workspace_id, 1 FROM profiles
        ON CONFLICT (workspace_id) DO UPDATE SET splits = workspaces.splits + 1
        """
    )
    await connection.execute("UPDATE workspaces SET rules_version = 0")
    await connection.execute("TRUNCATE profiles, identifiers, merges, decisions, separations, rules")


@pytest.fixture
def identity(start_service: StartService) -> ServiceProcess:
    """One replica."""
    return start_service("identity")


@pytest.fixture(scope="module")
def module_database_url(migrated_database: MigratedDatabases) -> str:
    """URL of a migrated database that only this module uses."""
    return migrated_database("identity")


@pytest.fixture(scope="module")
def module_identity(
    module_nats: NatsServer, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """One replica for a module."""
    environment = {"CDI_NATS_URL": module_nats.url, "CDI_DATABASE_URL": module_database_url}
    with ServiceProcess("identity", environment, tmp_path_factory.mktemp("identity")) as process:
        yield process


@pytest.fixture
async def shared_identity(module_identity: ServiceProcess, module_database_url: str) -> ServiceProcess:
    """The module's replica with an empty graph; its stream keeps what earlier tests merged."""
    connection = await asyncpg.connect(module_database_url)
    await empty(connection)
    await connection.close()
    return module_identity


@pytest.fixture(scope="module")
def loader(module_nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A warehouse for a module."""
    directory = tmp_path_factory.mktemp("loader")
    environment = {
        "CDI_NATS_URL": module_nats.url,
        "CDI_DUCKDB_PATH": str(directory / "warehouse.duckdb"),
        "CDI_LOAD_LINGER_SECONDS": "0.02",
        "CDI_ADMIN_TOKEN_HASHES": sha256(WAREHOUSE_TOKEN.encode()).hexdigest(),
    }
    with ServiceProcess("warehouse-loader", environment, directory) as process:
        yield process


@pytest.fixture(scope="module")
def identity_with_history(
    loader: ServiceProcess, module_nats: NatsServer, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    """One replica for a module that knows the warehouse."""
    environment = {
        "CDI_NATS_URL": module_nats.url,
        "CDI_DATABASE_URL": module_database_url,
        "CDI_WAREHOUSE_ADDRESS": loader.grpc,
        "CDI_WAREHOUSE_TOKEN": WAREHOUSE_TOKEN,
    }
    with ServiceProcess("identity", environment, tmp_path_factory.mktemp("identity")) as process:
        yield process


@pytest.fixture
def replicas(start_service: StartService, migrated_database: MigratedDatabases) -> tuple[ServiceProcess, ServiceProcess]:
    """Two replicas over one database."""
    environment = {"CDI_DATABASE_URL": migrated_database("identity")}
    return start_service("identity", environment, name="identity-1"), start_service("identity", environment, name="identity-2")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Makes a stub for a replica; its channel is closed at the end of the test."""
    channels: list[grpc.aio.Channel] = []

    def make(process: ServiceProcess) -> IdentityServiceStub:
        channels.append(grpc.aio.insecure_channel(process.grpc, options=[("grpc.max_reconnect_backoff_ms", 200)]))
        return IdentityServiceStub(channels[-1])

    yield make
    for channel in channels:
        await channel.close(grace=None)


@pytest.fixture
async def bus(fresh_nats: NatsServer) -> AsyncIterator[Bus]:
    async with connect(fresh_nats.url, "test") as made:
        yield made


@pytest.fixture
async def watching() -> AsyncIterator[Watching]:
    made: list[Watch] = []

    def watch(process: ServiceProcess, who: str) -> Watch:
        made.append(Watch(process, who))
        return made[-1]

    yield watch
    for each in made:
        await each.close()
