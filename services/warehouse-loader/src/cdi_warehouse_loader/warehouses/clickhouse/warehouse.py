"""ClickHouse as a warehouse, shared by any number of loaders.

There are no transactions, so a load is done in an order in which nothing is lost or twice, wherever it ends:

1. All rows are made and compared with the tables, before anything is written.
2. Tables and columns that are missing are made; that stays, whatever comes.
3. Rows are inserted, a statement per table, with the number of the load. Their identity is the table's sorting key.
4. One line of the chain (``chain.py``) says that the load counts: positions, counts and log in one insert.

Whoever dies before 4 leaves rows that no line speaks of. The next process that loads the partition deletes them before it loads anything
(``sessions.py``), and brings the same events again. Until then they are seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import Change, LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.changes import changes_of
from cdi_warehouse_loader.warehouses.clickhouse import chain, erasure, identity, sql, state
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection, ValuesRefused, database_of
from cdi_warehouse_loader.warehouses.clickhouse.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.clickhouse.sessions import Session

_FOLD_EVERY: Final = 500
"""Loads between two sums of all lines."""

_VALUES: Final = 2_000
"""Values that one statement looks for."""


def open_warehouse(options: Options) -> ClickHouseWarehouse:
    """Opens a warehouse, and makes what the loader needs for itself.

    Raises:
        Unavailable: the server cannot be reached.
    """
    loading = Connection(options)
    try:
        for statement in sql.OWN_TABLES:
            loading.run(statement)
        loading.run(f"create database if not exists {sql.quoted(database_of(options.url))}")
        return ClickHouseWarehouse(options, loading, Connection(options))
    except BaseException:
        loading.close()
        raise


class ClickHouseWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``.

    Args:
        options: for the connections of questions.
        loading: of the thread that loads.
        reading: of the thread that reads.
    """

    clean_rooms: None = None
    broken: str | None = None

    def __init__(self, options: Options, loading: Connection, reading: Connection) -> None:
        self._options = options
        self._loading = loading
        self._reading = reading
        self._chain = chain.Chain(loading)
        self._session = Session(loading, self._chain)
        self._ready: set[str] = set()
        self._unfolded = _FOLD_EVERY - 1  # the first load sums up what a process that never came so far has left
        self._is_stale = False
        self.catalog: Catalog = state.catalog(loading)

    @property
    def positions(self) -> Mapping[StreamPartition, Position]:
        """See ``ports.Warehouse``."""
        return dict(self._chain.positions)

    @property
    def newest_erasure_us(self) -> int:
        """See ``ports.Warehouse``."""
        return self._chain.newest_erasure_us

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if self._is_stale:
            self._look_again()
        if schema in self._ready:
            return
        for statement in sql.starting_tables(schema, self.catalog.get(schema, {})):
            self._loading.run(statement)
        self._show(schema, (naming.USERS, naming.ACCOUNTS))
        for statement in identity.views(schema):
            self._loading.run(statement)
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``. ``keep=False`` lets the server read all rows, and keep none."""
        started = time.perf_counter()
        if self._is_stale:
            self._look_again()
        tables = [self._checked(table) for table in load.tables]
        done = [table.done() for table in tables]
        if not keep:
            for table in tables:
                self._try(table)
            return done
        partitions = list(load.positions)
        self._is_stale = True
        try:
            self._session.catch_up(partitions)
            if self._session.claim(partitions, self.catalog):
                raise Unavailable(DEPENDENCY, "rows that a process left when it died were taken away; the load begins again")
            self._alter(tables, partitions)
            for statement in sql.empty(load.clears, self.catalog.get(load.clears, {})):
                self._loading.run(statement)
            number = self._session.next_load()
            for table in tables:
                self._insert(table, number)
            self._session.append_load(number, _said(load, done, started), partitions)
        except BaseException:
            self._session.drop()
            raise
        self._is_stale = False
        self._fold()
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        name, wanted = sql.quoted(column), list(values)
        found: set[str] = set()
        for start in range(0, len(wanted), _VALUES):
            texts = ", ".join(map(sql.text, wanted[start : start + _VALUES]))
            rows = self._loading.rows(f"select distinct {name} from {sql.place(schema, table)} where {name} in ({texts})")
            found.update(value for (value,) in rows)
        return found

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        return chain.counts(self._reading)

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        rows = self._loading.rows(
            f"select workspace_id, name, purposes, schema_name, version from {sql.OWN}.warehouses final order by workspace_id, name"
        )
        return [Document(row[0], row[1], tuple(row[2]), row[3], row[4]) for row in rows]

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        row = {
            "workspace_id": [document.workspace_id],
            "name": [document.name],
            "purposes": pa.array([list(document.purposes)], pa.list_(pa.string())),
            "schema_name": [document.schema],
            "version": pa.array([document.version], pa.int32()),
        }
        self._loading.insert(f"{sql.OWN}.warehouses", pa.record_batch(row))

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. Tombstones come first: from their line on no process can load what was planned without them, so what is
        deleted then does not come back, and who dies over it is told again.
        """
        counts: list[dict[str, int]] = [{} for _ in erasures]
        self._session.drop()
        erasure.remember(self._loading, erasures, now_us)
        self._chain.append(chain.Kind.ERASURE, chain.Said(erased_us=now_us))
        self._look_again()
        with erasure.Search(self._loading, erasures) as search:
            for schema, tables in self.catalog.items():
                found = search.in_schema(schema, tables)
                if found:
                    erasure.note_unrewritten(self._loading, schema, found, now_us)
                for table, rows in found.items():
                    search.delete(schema, table)
                    for number, hits in rows.items():
                        counts[number][f"{schema}.{table}"] = hits
        return Erased(counts, more=False)

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        return erasure.tombstones(self._loading, digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        for table, rows in erasure.holdings(self._reading, self.catalog, person):
            take(table, rows)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``."""
        return erasure.oldest_unrewritten_us(self._loading)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        return run_query(self._options, question)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        return stream_query(self._options, question, take)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        return chain.loads(self._loading, limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        return [
            SchemaChange(at_us, name, table, column, Change(change), kind)
            for at_us, (name, table, column, change, kind) in chain.changes(self._loading)
            if name == schema
        ]

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        self._loading.close()
        self._reading.close()

    def _checked(self, load: TableLoad) -> TableLoad:
        """A table's rows, of which every column is known or new."""
        known = {**self.catalog.get(load.schema, {}).get(load.table, {}), **load.added}
        unknown = [] if load.rows is None else [name for name in load.rows.schema.names if name not in known]
        if unknown:
            raise ValueError(f"{load.schema}.{load.table} has no column {', '.join(unknown)}")
        return load

    def _try(self, load: TableLoad) -> None:
        """Has the server read the rows as the table would hold them."""
        if load.rows is None or not load.rows.num_rows:
            return
        known = {**self.catalog.get(load.schema, {}).get(load.table, {}), **load.added, **dict.fromkeys(load.widened, ColumnType.DOUBLE)}
        columns = [f"{sql.column_of(name)} {sql.column_type(load.table, name, known[name])}" for name in load.rows.schema.names]
        self._loading.insert(f"function null({sql.text(', '.join(columns))})", _stored(load.rows))

    def _alter(self, tables: Sequence[TableLoad], partitions: Sequence[StreamPartition]) -> None:
        """Makes what the loads need. The chain knows before, so that of two processes one plans anew; who was overtaken sees it after."""
        changed = [load for load in tables if load.added or load.widened or load.table not in self.catalog.get(load.schema, {})]
        if not changed:
            return
        said = chain.Said(changes=list(changes_of(changed, self.catalog)))
        self._session.append_changes(said, partitions)
        for load in changed:
            for statement in sql.change_table(load, is_new=load.table not in self.catalog.get(load.schema, {})):
                self._change(statement)
        self._look_again()
        for load in changed:
            columns = self.catalog[load.schema][load.table]
            expected = {**load.added, **dict.fromkeys(load.widened, ColumnType.DOUBLE)}
            if any(columns.get(name) is not kind for name, kind in expected.items()):
                raise chain.another_was_there()
            if sql.is_people(load.table):
                self._show(load.schema, (load.table,))

    def _change(self, statement: str) -> None:
        """Changes a table. What is refused here no try of the load would show, and bisecting would take its events for loaded."""
        try:
            self._loading.run(statement)
        except ValuesRefused as error:
            raise Unavailable(DEPENDENCY, f"ClickHouse refuses to change a table: {error}") from error

    def _show(self, schema: str, tables: Sequence[str]) -> None:
        """Makes the views of users and accounts, until they have all columns: another process may add one and make them at the same time."""
        self._look_again()
        shown = None
        while shown != (shown := {table: tuple(self.catalog[schema][table]) for table in tables}):
            for table, columns in shown.items():
                self._loading.run(sql.people_view(schema, table, columns))
            self._look_again()

    def _insert(self, load: TableLoad, number: int) -> None:
        if load.rows is None or not load.rows.num_rows:
            return
        numbers = pa.array([number] * load.rows.num_rows, pa.uint64())
        try:
            self._loading.insert(sql.stored(load.schema, load.table), _stored(load.rows).append_column(sql.LOAD, numbers))
        except ValuesRefused:
            # Bisecting finds the event only if a try of it fails too; if not, nothing is wrong with the values.
            self._try(load)
            raise Unavailable(DEPENDENCY, "ClickHouse refuses rows that it takes when it is asked again") from None

    def _fold(self) -> None:
        self._unfolded += 1
        if self._unfolded < _FOLD_EVERY:
            return
        try:
            self._chain.fold()
            self._unfolded = 0
        except Unavailable:  # another process has appended meanwhile; what it said is seen by the next load
            self._session.drop()
            self._is_stale = True

    def _look_again(self) -> None:
        self.catalog = state.catalog(self._loading)
        self._is_stale = False


def _stored(rows: Any) -> Any:
    """Rows with their columns' names in the table."""
    return rows.rename_columns([sql.stored_column(name) for name in rows.schema.names])


def _said(load: Load, done: Sequence[TableLoad], started: float) -> chain.Said:
    rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
    milliseconds = (time.perf_counter() - started) * 1_000
    return chain.Said(
        positions=[(*where, *at) for where, at in load.positions.items()],
        counts=[(key.sink, int(key.outcome), key.reason, events) for key, events in load.counts.items() if events],
        log=(load.stream, milliseconds, load.events, rows, size, len(done)),
    )
