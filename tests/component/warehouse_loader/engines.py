"""The engines under test, each as a fresh and empty warehouse, and loads as the loader plans them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.event.v1.outcome_pb2 import OUTCOME_LOADED
from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_cli.embedded import PostgresServer
from cdi_kernel.faults import InvalidArgument
from cdi_testing.plugin import new_database_name
from cdi_warehouse_loader.domain.event_load import plan_events
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads
from cdi_warehouse_loader.domain.layout import SEQUENCE_FACTOR
from cdi_warehouse_loader.domain.load import START, CountKey, Load, Position, StreamPartition, Target, Targets
from cdi_warehouse_loader.domain.rows import Item
from cdi_warehouse_loader.ports import QueryLimits, Question, Warehouse
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options

LIMITS = QueryLimits(1_000, 4_000_000, 10.0)
NOW_US = 1_800_000_000_000_000
LOADED = CountKey("warehouse:main", OUTCOME_LOADED, "")


@dataclass
class Place:
    """One warehouse of one engine.

    Attributes:
        options: how to open it.
        stored: every byte that the engine has stored of it, for a search; blocks. ``None``: its storage cannot be looked at here.
        shared: several processes may have it open at once.
        asking: sees to it that questions with purposes are answered, and says how to open it for that; ``None``: it answers none.
        endless: why a question that takes too long cannot be ended here; empty: it can.
        plain: tables can have names of a to z only here.
    """

    options: Options
    stored: Callable[[], bytes] | None
    shared: bool
    asking: Callable[[], Options] | None
    endless: str = ""
    plain: bool = False
    opened: list[Warehouse] = field(default_factory=list)

    def open(self, options: Options | None = None) -> Warehouse:
        """Opens it, once more where it is shared; as it is meant to be opened unless told otherwise."""
        warehouse = REGISTRY[self.options.kind].open(options or self.options)
        self.opened.append(warehouse)
        return warehouse

    def close(self) -> None:
        """Closes all that is open of it."""
        while self.opened:
            self.opened.pop().close()

    def rewrite(self) -> None:
        """Writes it anew."""
        self.close()
        REGISTRY[self.options.kind].rewrite(self.options)


def files(path: Path) -> bytes:
    """All that lies in a folder."""
    return b"".join(file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file())


def duckdb(directory: Path) -> Place:
    """A file."""
    options = Options(f"duckdb:{directory}/warehouse.duckdb")
    return Place(options, lambda: files(directory), shared=False, asking=lambda: options)


def postgresql(server: PostgresServer, url: str) -> Place:
    """A database whose owner is no superuser."""
    name = urlsplit(url).path.removeprefix("/")
    server.execute(f"create role owner_of_{name} login password 'sesame-3f'")
    server.execute(f"alter database {name} owner to owner_of_{name}")

    def stored() -> bytes:
        server.execute("checkpoint")  # writes what is in memory, and removes what was dropped
        return files(server.directory / "data" / "base" / server.execute(f"select oid from pg_database where datname = '{name}'"))

    url = f"postgresql://owner_of_{name}:sesame-3f@127.0.0.1:{server.port}/{name}"

    def asking() -> Options:
        """With a login for queries that may read all of it."""
        reader, owner = f"reader_of_{name}", f"owner_of_{name}"
        statements = [f"create role {reader} login password 'open'"]
        for schema in ("main", "cdi_archive"):
            statements += [
                f"create schema if not exists {schema} authorization {owner}",
                f"grant usage on schema {schema} to {reader}",
                f"alter default privileges for role {owner} in schema {schema} grant select on tables to {reader}",
            ]
        server.execute("; ".join(statements), name)
        return Options(f"{url}?query_user={reader}&query_password=open")

    return Place(Options(url), stored, shared=True, asking=asking)


def iceberg(directory: Path) -> Place:
    """A folder with an SQLite catalog."""
    options = Options(f"iceberg+sqlite://{directory}/lake")
    return Place(options, lambda: files(directory), shared=True, asking=lambda: options)


def clickhouse(directory: Path) -> Place:
    """The engine inside of this process."""
    options = Options(f"clickhouse+chdb://{directory}/clickhouse")
    return Place(options, lambda: files(directory), shared=True, asking=lambda: options)


def snowflake(port: int) -> Place:
    """A database of a fakesnow server, whose storage is no vendor's."""
    url = f"snowflake://loader:sesame@account/{new_database_name()}?host=127.0.0.1&port={port}&protocol=http"
    return Place(Options(url), None, shared=True, asking=None)


def bigquery(url: str) -> Place:
    """A project of the emulator. What is stored of it is what can be read of it: the vendor shows nobody its files."""

    def stored() -> bytes:
        from cdi_warehouse_loader.warehouses.bigquery.connection import Address, Connection

        address = Address.of(url)
        connection = Connection(address, None)
        kept: list[bytes] = []
        for dataset in connection.client.list_datasets():
            for table in connection.client.list_tables(dataset.reference):
                if table.table_type == "TABLE":
                    rows = connection.rows(f"SELECT * FROM `{dataset.dataset_id}`.`{table.table_id}`")
                    kept += [repr(row).encode() for row in rows]
        connection.close()
        return b"".join(kept)

    endless = "the emulator runs a question to its end before it answers, and nothing can end it"
    return Place(Options(url), stored, shared=True, asking=None, endless=endless, plain=True)


def planned_items(*events: Event, partition: int = 0, sequence: int = 1) -> list[Item]:
    """The events of one message as the loader reads them, with their places."""
    read = read_batch(EventBatch(events=events).SerializeToString()).events
    return [(event, partition, sequence * SEQUENCE_FACTOR + place) for place, event in enumerate(read)]


def planned(warehouse: Warehouse, events: Sequence[Event], *, partition: int = 0, schema: str = "main") -> Load:
    """A load of one message with the next sequence of the partition, as this handle sees it."""
    warehouse.ensure_tables(schema)
    at = StreamPartition("ENRICHED", partition)
    sequence = warehouse.positions.get(at, START).sequence + 1
    items = planned_items(*events, partition=partition, sequence=sequence)
    targets = Targets(others=[Target("main", schema, frozenset())])
    return plan_events(items, (), {at: Position(sequence, sequence)}, targets, NOW_US)(warehouse.catalog)


def load(warehouse: Warehouse, *events: Event, partition: int = 0, schema: str = "main") -> None:
    """Loads one message."""
    warehouse.load(planned(warehouse, events, partition=partition, schema=schema))


def load_graph(warehouse: Warehouse, *messages: GraphChanged) -> None:
    """Loads messages of IDENTITY with the next sequences."""
    warehouse.ensure_tables("main")
    at = StreamPartition("IDENTITY", 0)
    first = warehouse.positions.get(at, START).sequence + 1
    loads = graph_loads("main", [Numbered(first + place, message) for place, message in enumerate(messages)], NOW_US, personal=True)
    warehouse.load(Load("IDENTITY", len(messages), loads, {at: Position(first + len(messages) - 1, 0)}, {}))


def rows(warehouse: Warehouse, sql: str, limits: QueryLimits = LIMITS, **question: Any) -> list[list[Any]]:
    """The rows of a question."""
    return [list(row) for row in warehouse.query(Question(sql, limits, **question)).values]


def shown(warehouse: Warehouse, sql: str, **asked: Any) -> list[list[Any]]:
    """The rows of an answer; none when the question is refused."""
    try:
        return rows(warehouse, sql, **asked)
    except InvalidArgument:
        return []


def records(warehouse: Warehouse, sql: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a question by column, as Arrow has them; the case of names is an engine's own."""
    batches: list[Any] = []
    warehouse.stream(Question(sql, LIMITS), batches.append)
    for batch in batches:
        yield from batch.rename_columns([name.lower() for name in batch.schema.names]).to_pylist()
