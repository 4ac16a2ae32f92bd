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
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import Change, LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.clickhouse import chain, erasure, sql
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection, database_of
from cdi_warehouse_loader.warehouses.clickhouse.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.clickhouse.sessions import Session
from cdi_warehouse_loader.warehouses.clickhouse.tables import Tables

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
    exclusive = False
    wants_reopening = False

    def __init__(self, options: Options, loading: Connection, reading: Connection) -> None:
        self._options = options
        self._loading = loading
        self._reading = reading
        self._chain = chain.Chain(loading)
        self._session = Session(loading, self._chain)
        self._ready: set[str] = set()
        self._unfolded = _FOLD_EVERY - 1  # the first load sums up what a process that never came so far has left
        self._tables = Tables(loading)

    @property
    def catalog(self) -> Catalog:
        """See ``ports.Warehouse``."""
        return self._tables.catalog

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
        if self._tables.is_stale:
            self._tables.look_again()
        if schema in self._ready:
            return
        self._tables.make(schema)
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``. ``keep=False`` lets the server read all rows, and keep none."""
        started = time.perf_counter()
        if self._tables.is_stale:
            self._tables.look_again()
        tables = [self._tables.checked(table) for table in load.tables]
        done = [table.done() for table in tables]
        if not keep:
            for table in tables:
                self._tables.attempt(table)
            return done
        partitions = list(load.positions)
        claimed = partitions
        if load.clears:  # a session that others come before: what they are loading now does not count, what they load later stays
            claimed = list({*self._chain.claims, *load.positions})
            self._session.drop()
        self._tables.is_stale = True
        try:
            self._session.catch_up(claimed)
            if self._session.claim(claimed, self.catalog) and not load.clears:
                raise Unavailable(DEPENDENCY, "rows that a process left when it died were taken away; the load begins again")
            self._tables.alter(tables, lambda changes: self._session.append_changes(changes, partitions))
            number = self._session.next_load()
            for table in tables:
                self._tables.insert(table, number)
            self._session.append_load(number, _said(load, done, started), partitions)
            for place in load.clears:
                self._loading.run(sql.delete_before(*place, self._session.first_load))
        except BaseException:
            self._session.drop()
            raise
        self._tables.is_stale = False
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
        columns = "workspace_id, name, purposes, schema_name, version, frozen_sources"
        rows = self._loading.rows(f"select {columns} from {sql.OWN}.warehouses final order by workspace_id, name")
        return [
            Document(workspace, name, tuple(purposes), schema, version, tuple(frozen))
            for workspace, name, purposes, schema, version, frozen in rows
        ]

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        row = {
            "workspace_id": [document.workspace_id],
            "name": [document.name],
            "purposes": pa.array([list(document.purposes)], pa.list_(pa.string())),
            "schema_name": [document.schema],
            "version": pa.array([document.version], pa.int32()),
            "frozen_sources": pa.array([list(document.frozen_sources)], pa.list_(pa.string())),
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
        self._tables.look_again()
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
        return run_query(self._options, question, self.catalog)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        return stream_query(self._options, question, self.catalog, take)

    def place(self, schema: str, table: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.place(schema, table)

    def literal(self, text: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.text(text)

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

    def _fold(self) -> None:
        self._unfolded += 1
        if self._unfolded < _FOLD_EVERY:
            return
        try:
            self._chain.fold()
            self._unfolded = 0
        except Unavailable:  # another process has appended meanwhile; what it said is seen by the next load
            self._session.drop()
            self._tables.is_stale = True


def _said(load: Load, done: Sequence[TableLoad], started: float) -> chain.Said:
    rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
    milliseconds = (time.perf_counter() - started) * 1_000
    return chain.Said(
        positions=[(*where, *at) for where, at in load.positions.items()],
        counts=[(key.sink, int(key.outcome), key.reason, events) for key, events in load.counts.items() if events],
        log=(load.stream, milliseconds, load.events, rows, size, len(done)),
    )
