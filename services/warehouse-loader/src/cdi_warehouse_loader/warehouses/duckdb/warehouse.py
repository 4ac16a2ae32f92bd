"""The embedded warehouse: one DuckDB file, held by one process.

One transaction per load. The loader's thread uses one connection and queries use another, so that a query sees the committed state and
never waits for a load. Settings are locked after the start, and no statement can reach a file beside the database.

Facts that shape this (DuckDB 2.0): one process can hold the file for writing, a second one fails to open it; rows of a committed load lie
in the write-ahead log until a checkpoint, and are replayed from it after a crash; after a fatal error the handle must be opened anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import duckdb

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import json_text
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.changes import changed, changes_of
from cdi_warehouse_loader.warehouses.duckdb import clean_rooms, consenting, erasure, identity, sql, state
from cdi_warehouse_loader.warehouses.duckdb.feeding import Feeds
from cdi_warehouse_loader.warehouses.duckdb.file import attach, connected
from cdi_warehouse_loader.warehouses.duckdb.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.duckdb.room import Room

DEPENDENCY: Final = "warehouse"
_PASSING: Final = (duckdb.IOException, duckdb.TransactionException)
_FOLD_EVERY: Final = 500
"""Loads between two foldings of progress and outcomes."""

_REOPEN_AFTER_ROWS: Final = 2_000_000
"""Loaded rows after which the file should be opened anew: of each million, DuckDB keeps 8 MB about their row groups and columns in memory,
which no later load reads."""

_FATAL: Final = (duckdb.FatalException, duckdb.InternalException)


def open_warehouse(options: Options) -> DuckDbWarehouse:
    """Opens, or makes, the database file. Blocks while the write-ahead log of a crash is replayed.

    Raises:
        Unavailable: another process holds it, or it cannot be read.
    """
    options.path.parent.mkdir(parents=True, exist_ok=True)
    root = connected(options)
    try:
        attach(root, options.path, "warehouse")
        root.execute("set global timezone = 'UTC'")
        root.execute(f"set global checkpoint_threshold = '{options.checkpoint_threshold}'")
        root.execute("set global preserve_insertion_order = false")
        warehouse = DuckDbWarehouse(root, options)
        warehouse.bring_up_to_date()
        return warehouse
    except Unavailable:
        root.close()
        raise
    except (*_PASSING, *_FATAL, duckdb.OutOfMemoryException) as error:
        root.close()
        held = "Could not set lock" in str(error)
        text = "another process holds the DuckDB file; waiting until it ends" if held else f"the DuckDB file cannot be opened: {error}"
        raise Unavailable(DEPENDENCY, text, retry_after=1.0) from error


class DuckDbWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``."""

    def __init__(self, root: duckdb.DuckDBPyConnection, options: Options) -> None:
        self.exclusive = True
        self.broken: str | None = None
        self.catalog: Catalog = {}
        self.positions: Mapping[StreamPartition, Position] = {}
        self.newest_erasure_us = 0
        self._ready: set[str] = set()
        self._room = Room(options.memory_bytes)
        self._unfolded = _FOLD_EVERY
        self._loaded_rows = 0
        self._root = root
        self._loading, self._querying, self._consenting = root.cursor(), root.cursor(), root.cursor()
        self._feeds = Feeds(self._loading)
        for connection in (self._loading, self._querying):
            connection.execute("use warehouse")
        self.clean_rooms = clean_rooms.DuckDbCleanRooms(self._loading, self._querying, self._translated)
        for connection in (self._querying, self._consenting):
            connection.execute(f"set operator_memory_limit = '{options.query_memory_limit}'")
        root.execute("set global enable_external_access = false")
        root.execute("set global lock_configuration = true")
        with self._transaction(keep=True):
            self._run((*sql.OWN_TABLES, *clean_rooms.OWN_TABLES, erasure.TOMBSTONES, erasure.UNREWRITTEN))
            if self._loading.execute(sql.HAS_KEYED_PROGRESS).fetchall() == [(True,)]:
                self._run(sql.TAKE_KEYED_PROGRESS)
        self._read_state()

    @property
    def wants_reopening(self) -> bool:
        """See ``ports.Warehouse``."""
        return self._loaded_rows >= _REOPEN_AFTER_ROWS

    def bring_up_to_date(self) -> None:
        """Gives the schemas of an older file what they lack, so that it can be queried before the next load."""
        for schema, tables in self.catalog.items():
            if naming.ID_GRAPH_UPDATES in tables:
                self.ensure_tables(schema)

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if schema in self._ready:
            return
        tables = self.catalog.get(schema, {})
        with self._translated():
            with self._transaction(keep=True):
                if identity.is_old(tables):
                    self._run(identity.rename_old(schema, tables))
                    tables = state.catalog(self._loading).get(schema, {})
                self._run(sql.starting_tables(schema, tables))
                self._run(identity.views(schema))
            self._feeds.tables_changed()
            self._read_state()
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``."""
        started = time.perf_counter()
        done: list[TableLoad] = []
        if self._room.is_short():
            self._fold_in()  # once more: it fails while something else writes
        with self._translated():
            try:
                with self._transaction(keep=keep):
                    if self._unfolded >= _FOLD_EVERY:
                        self._fold()
                    self._run(sql.empty(schema, table) for schema, table in load.clears)
                    self._room.begin()
                    for table in load.tables:
                        self._load_table(table)
                        done.append(table.done())
                    self._write_progress(load, done, started)
            except duckdb.Error:
                with contextlib.suppress(duckdb.Error):
                    self._read_state()
                raise
        if keep:
            self._room.commit()
            self._loaded_rows += sum(table.row_count for table in done)
            if self._room.is_short():
                self._fold_in()
            self._unfolded = 1 if self._unfolded >= _FOLD_EVERY else self._unfolded + 1
            self.positions = {**self.positions, **load.positions}
            self.catalog = changed(self.catalog, done)
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        name = sql.quoted(column)
        with self._translated():
            found = self._loading.execute(
                f"select distinct {name} from {sql.place(schema, table)} where {name} in (select unnest(?))", [list(values)]
            ).fetchall()
        return {row[0] for row in found}

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with self._translated(), self._root.cursor() as connection:
            connection.execute("use warehouse")
            return state.counts(connection)

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        with self._translated():
            rows = self._loading.execute(sql.READ_DOCUMENTS).fetchall()
        return [
            Document(workspace, name, tuple(purposes), schema, version, tuple(frozen))
            for workspace, name, purposes, schema, version, frozen in rows
        ]

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        names = [list(document.purposes), document.schema, document.version, list(document.frozen_sources)]
        values = [document.workspace_id, document.name, *names]
        with self._translated(), self._transaction(keep=True):
            self._loading.execute(sql.WRITE_DOCUMENT, values)

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. The checkpoint frees the memory that deleted rows take, for the next pass."""
        with self._translated():
            with self._transaction(keep=True):
                erased = erasure.erase(self._loading, self.catalog, erasures, now_us)
            self.newest_erasure_us = max(self.newest_erasure_us, now_us)
            if erased.more:
                self._loading.execute("checkpoint")
        return erased

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with self._translated():
            return erasure.tombstones(self._loading, digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with self._translated(), self._root.cursor() as connection:
            connection.execute("use warehouse")
            for table, rows in erasure.holdings(connection, self.catalog, person):
                take(table, rows)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``."""
        with self._translated():
            return erasure.oldest_unrewritten_us(self._loading)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        with self._translated():
            connection, before = self._asked(question)
            return run_query(connection, question.sql, question.limits, before=before)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        with self._translated():
            connection, before = self._asked(question)
            return stream_query(connection, question.sql, question.limits, take, before)

    def place(self, schema: str, table: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.place(schema, table)

    def literal(self, text: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.literal(text)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        with self._translated():
            return state.loads(self._loading, limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        with self._translated():
            return state.schema_changes(self._loading, schema)

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        for connection in (self._consenting, self._querying, self._loading, self._root):
            connection.close()

    def _fold_in(self) -> None:
        """From whichever thread has no memory; a load that is under way keeps it from happening, and is not touched."""
        with contextlib.suppress(duckdb.Error), self._root.cursor() as connection:
            connection.execute("checkpoint warehouse")
            self._room.folded_in()

    def _asked(self, question: Question) -> tuple[duckdb.DuckDBPyConnection, Iterable[str]]:
        """The connection that answers a question, and what it has to do before."""
        if not question.purposes:
            return self._querying, ()
        consenting.check_names(self._consenting, question.sql, self.catalog)
        return self._consenting, consenting.views(self.catalog, question.purposes)

    def _load_table(self, load: TableLoad) -> None:
        known = self.catalog.get(load.schema, {}).get(load.table)
        if known is None:
            self._loading.execute(sql.create_table(load.schema, load.table, load.added))
        else:
            for column, kind in load.added.items():
                self._loading.execute(sql.add_column(load.schema, load.table, column, kind))
        for column in load.widened:
            self._loading.execute(sql.widen_column(load.schema, load.table, column))
        if known is None or load.added or load.widened:
            self._feeds.tables_changed()
        if load.rows is None or not load.rows.num_rows:
            return
        if not self._room.takes((load.schema, load.table)):
            raise OutOfMemory(DEPENDENCY, "the load touches more tables than DuckDB has memory for (CDI_DUCKDB_MEMORY_LIMIT)")
        self._feeds.load(load)

    def _write_progress(self, load: Load, done: Sequence[TableLoad], started: float) -> None:
        self._append_progress(load.positions, load.counts)
        rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
        milliseconds = (time.perf_counter() - started) * 1_000
        self._loading.execute(sql.WRITE_LOG, [load.stream, milliseconds, load.events, rows, len(done), size])
        if changes := list(changes_of(done, self.catalog)):
            self._loading.execute(sql.WRITE_CHANGES, [json_text(changes)])

    def _append_progress(self, positions: Mapping[StreamPartition, Position], counts: Mapping[CountKey, int]) -> None:
        places = [(where.stream, where.partition, at.sequence, at.source_sequence) for where, at in positions.items()]
        if places:
            self._loading.execute(sql.WRITE_POSITIONS, _turned(places))
        outcomes = [(key.sink, int(key.outcome), key.reason, events) for key, events in counts.items() if events]
        if outcomes:
            self._loading.execute(sql.WRITE_COUNTS, _turned(outcomes))

    def _fold(self) -> None:
        """Leaves one row per key of what loads have appended."""
        positions, counts = state.positions(self._loading), state.counts(self._loading)
        for statement in sql.FORGET_PROGRESS:
            self._loading.execute(statement)
        self._append_progress(positions, counts)

    @contextlib.contextmanager
    def _transaction(self, *, keep: bool) -> Iterator[None]:
        self._loading.execute("begin")
        try:
            yield
            if keep:
                self._loading.execute("commit")
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # a failed commit has rolled back already
                self._loading.execute("rollback")
            self._feeds.forget()
            raise
        if not keep:
            self._loading.execute("rollback")
            self._feeds.forget()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _FATAL as error:
            self.broken = f"DuckDB gave up on the file: {type(error).__name__}"
            raise Unavailable(DEPENDENCY, self.broken, retry_after=1.0) from error
        except duckdb.OutOfMemoryException as error:
            self._fold_in()  # rows that are committed and not yet in the file hold memory too
            raise OutOfMemory(DEPENDENCY, "the load needs more memory than DuckDB may use (CDI_DUCKDB_MEMORY_LIMIT)") from error
        except OutOfMemory:
            self._fold_in()
            raise
        except _PASSING as error:
            raise Unavailable(DEPENDENCY, f"DuckDB cannot now: {type(error).__name__}") from error

    def _read_state(self) -> None:
        self.catalog = state.catalog(self._loading)
        self.positions = state.positions(self._loading)
        self.newest_erasure_us = erasure.newest_us(self._loading)

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._loading.execute(statement)


def _turned(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    """Rows as columns: one statement with lists, because each execution of a statement costs milliseconds."""
    return [list(column) for column in zip(*rows, strict=True)]
