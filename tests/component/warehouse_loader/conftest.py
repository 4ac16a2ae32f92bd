"""A loader process on a NATS server of its own, and a publisher that plays enrichment."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.identity.v1.profile_pb2 import MAPPING_OPERATION_CREATED, MAPPING_OPERATION_REMOVED, GraphChanged, Identifier
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1 import warehouse_service_pb2_grpc as pb_grpc
from cdi_cli.embedded import NatsServer, ServiceProcess, free_port
from cdi_kernel import envelope, topology
from cdi_kernel.faults import Unavailable
from cdi_runtime import rpc
from cdi_runtime.bus import Bus, connect
from cdi_testing import builders, eventually
from cdi_testing.eventually import WITHIN_SECONDS, eventually_sync

from . import engines
from .bigquery_emulator import bigquery_emulator as bigquery_emulator

ADMIN_TOKEN = "loader-admin"
ROOT = Path(__file__).parents[3]


class StartLoader:
    """Starts loaders; all loaders of a test share one file."""

    def __init__(self, nats: NatsServer, directory: Path) -> None:
        self.started: list[ServiceProcess] = []
        self._nats = nats
        self._directory = directory

    def __call__(self, name: str = "warehouse-loader", **settings: str) -> ServiceProcess:
        environment = {
            "CDI_NATS_URL": self._nats.url,
            "CDI_DUCKDB_PATH": str(self._directory / "warehouse.duckdb"),
            "CDI_LOAD_LINGER_SECONDS": "0.02",
            "CDI_ADMIN_TOKEN_HASHES": sha256(ADMIN_TOKEN.encode()).hexdigest(),
            **settings,
        }
        process = ServiceProcess("warehouse-loader", environment, self._directory, name=name)
        self.started.append(process)
        return process.start()


@pytest.fixture
def start_loader(fresh_nats: NatsServer, tmp_path: Path) -> Iterator[StartLoader]:
    starter = StartLoader(fresh_nats, tmp_path)
    yield starter
    for process in reversed(starter.started):
        process.stop()


@pytest.fixture
async def bus(fresh_nats: NatsServer) -> AsyncIterator[Bus]:
    async with connect(fresh_nats.url, "test") as connected:
        yield connected


class Enrichment:
    """Publishes to ENRICHED as enrichment does: one message per collected message."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.sequence = 0

    async def publish(self, events: Sequence[Event], *, partition: int = 0, source: int | None = None) -> int:
        """One message; ``source`` repeats an earlier one under a new message id."""
        self.sequence += 1
        number = source or self.sequence
        ack = await self.bus.publish(
            topology.enriched(partition),
            EventBatch(events=events).SerializeToString(),
            message_id=f"enriched-{partition}-{self.sequence}",
            headers={envelope.EVENTS: str(len(events)), envelope.SOURCE_SEQUENCE: str(number)},
        )
        assert not ack.duplicate
        return number


@pytest.fixture
def enrichment(bus: Bus) -> Enrichment:
    return Enrichment(bus)


Pair = tuple[str, str]


def graph_changed(
    *,
    canonicals: Sequence[Pair] = (),
    created: Sequence[tuple[str, str, str]] = (),
    removed: Sequence[tuple[str, str, str]] = (),
    traits: Sequence[tuple[str, str, bytes]] = (),
    workspace_id: str = builders.WORKSPACE,
    cause: str = "m1",
) -> GraphChanged:
    """A message of the identity service.

    Args:
        canonicals: profile, and what it is part of.
        created: type, value and profile of identifiers that are given; done after those that are taken.
        removed: the same of identifiers that are taken.
        traits: profile, name, JSON value.
        workspace_id: the workspace.
        cause: id of the event that caused it.
    """
    changed = GraphChanged(workspace_id=workspace_id, change_time=builders.timestamp(builders.EVENT_TIME))
    for profile, canonical in canonicals:
        changed.canonicals.add(profile_id=profile, canonical_profile_id=canonical, triggering_event_type="track", triggering_event_id=cause)
    for operation, mappings in ((MAPPING_OPERATION_REMOVED, removed), (MAPPING_OPERATION_CREATED, created)):
        for kind, value, profile in mappings:
            changed.mappings.add(
                identifier=Identifier(type=kind, value=value), profile_id=profile, operation=operation, triggering_event_id=cause
            )
    for profile, name, value in traits:
        changed.traits.add(
            profile_id=profile, name=name, value=value, event_time=builders.timestamp(builders.EVENT_TIME), triggering_event_id=cause
        )
    return changed


class Graph:
    """Publishes to IDENTITY as the identity service does."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.published = 0

    async def change(self, *messages: GraphChanged, kind: str = "changed") -> None:
        """Publishes messages in order."""
        for message in messages:
            self.published += 1
            await self.bus.publish(topology.identity(kind), message.SerializeToString(), message_id=f"identity-{self.published}")


@pytest.fixture
def graph(bus: Bus) -> Graph:
    return Graph(bus)


class Client:
    """Asks a loader."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def rows(self, sql: str) -> list[list[Any]]:
        """Rows of a query."""
        response = await self.query(sql)
        return [list(row) for row in response.rows]

    async def value(self, sql: str) -> Any:
        """The only value of a query."""
        ((value,),) = await self.rows(sql)
        return value

    async def query(self, sql: str, max_rows: int = 0) -> pb.QueryRowsResponse:
        """The whole answer."""
        return await rpc.call(self.stub.QueryRows, pb.QueryRowsRequest(sql=sql, max_rows=max_rows), timeout=20.0)

    async def counts(self) -> dict[tuple[str, str], int]:
        """Counts by sink and reason; no reason is ``loaded``."""
        response = await rpc.call(self.stub.CountOutcomes, pb.CountOutcomesRequest(), timeout=10.0)
        return {(line.sink, line.reason or "loaded"): line.events for line in response.counts}

    async def loaded(self, events: int, *, within: float = WITHIN_SECONDS) -> None:
        """Waits until so many events are loaded."""

        async def enough() -> bool:
            try:
                return (await self.counts()).get(("warehouse:main", "loaded"), 0) >= events
            except Unavailable:  # the load has all the memory; asking again is what the answer asks for
                return False

        await eventually(enough, within=within)

    async def graph_loaded(self, messages: int, *, within: float = WITHIN_SECONDS) -> None:
        """Waits until so many messages of IDENTITY are loaded."""
        sql = "select coalesce(max(sequence), 0) from _cdi.progress where stream = 'IDENTITY'"

        async def enough() -> bool:
            return bool(await self.value(sql) >= messages)

        await eventually(enough, within=within)


Connect = Callable[[ServiceProcess], Any]


@pytest.fixture
async def ask() -> AsyncIterator[Connect]:
    """Connects to a loader once it holds the warehouse."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect_to(process: ServiceProcess) -> Client:
            made = await stack.enter_async_context(rpc.channel(process.grpc, token=ADMIN_TOKEN))
            client = Client(pb_grpc.WarehouseServiceStub(made))
            await eventually(lambda: _answers(client))
            return client

        yield connect_to


async def _answers(client: Client) -> bool:
    try:
        return await client.value("select 1") == 1
    except Unavailable:
        return False


@pytest.fixture(scope="session")
def snowflake_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server that stands for Snowflake, with what is needed to speak to it."""
    if not all(map(find_spec, ("adbc_driver_snowflake", "fakesnow"))):
        pytest.skip("no Snowflake here: pip install 'cdi-warehouse-loader[snowflake-test]'")
    port = free_port()
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("snowflake"))}
    command = [sys.executable, "-m", "tests.component.warehouse_loader.snowflake_server", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        eventually_sync(lambda: _listens(port), within=60)
        yield port
    finally:
        # It would wait for connections that the driver keeps, and has nothing to finish.
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["duckdb", "postgresql", "iceberg", "clickhouse", "snowflake", "bigquery"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[engines.Place]:
    """Each engine in turn, as a fresh and empty warehouse."""
    if request.param == "clickhouse":
        pytest.importorskip("chdb", reason="no ClickHouse here: pip install 'cdi-warehouse-loader[clickhouse-test]' (half a gigabyte)")
    needs = request.getfixturevalue
    made = {
        "duckdb": lambda: engines.duckdb(tmp_path),
        "postgresql": lambda: engines.postgresql(needs("postgres_server"), needs("database_url")),
        "iceberg": lambda: engines.iceberg(tmp_path),
        "clickhouse": lambda: engines.clickhouse(tmp_path),
        "snowflake": lambda: engines.snowflake(needs("snowflake_port")),
        "bigquery": lambda: engines.bigquery(needs("bigquery_emulator").new_project()),
    }[request.param]()
    yield made
    made.close()
