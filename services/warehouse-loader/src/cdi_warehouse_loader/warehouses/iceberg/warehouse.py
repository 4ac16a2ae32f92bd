"""The lake: Iceberg tables of Parquet files, with a catalog in SQLite or Postgres.

A load writes its data files first, where nobody looks for them. Then, one process at a time, it writes what the tables consist of from now
on, and one transaction of the catalog's database names that, for all tables together, with positions, counts and log. So a load is all
or nothing over any number of tables, though Iceberg itself commits one table at a time.

Facts that shape this (pyiceberg 0.12): the SQL catalog keeps one row per table, which names its metadata file; nothing else says what a
table is. Files that no such row leads to are not there for anybody: a load that dies leaves some, and ``rewrite`` deletes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cdi_kernel.faults import Unavailable
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.changes import changes_of
from cdi_warehouse_loader.warehouses.duckdb.sql import literal, place
from cdi_warehouse_loader.warehouses.iceberg import compaction, erasure, query
from cdi_warehouse_loader.warehouses.iceberg.catalog import CatalogDatabase
from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Name
from cdi_warehouse_loader.warehouses.iceberg.files import batches
from cdi_warehouse_loader.warehouses.iceberg.lake import Lake, clock_us, discarding, translated
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage, opened

GRACE_US: Final = 600_000_000
"""How long files that were replaced stay for those who are reading them, in microseconds."""

_log = logger(__name__)
_LOG_US: Final = 14 * 86_400_000_000
_CLEAR_EVERY_SECONDS: Final = 60.0
_CLEARED_AT_ONCE: Final = 1_000


def open_warehouse(options: Options) -> IcebergWarehouse:
    """Opens, or makes, the lake.

    Raises:
        Unavailable: its catalog or its files cannot be reached.
    """
    with translated():
        database, storage = opened(options)
        return IcebergWarehouse(CatalogDatabase(database), storage, options)


class IcebergWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``."""

    clean_rooms = None
    broken = None
    exclusive = False
    wants_reopening = False

    def __init__(self, database: CatalogDatabase, storage: Storage, options: Options) -> None:
        self._lake = Lake(database, storage)
        self._storage = storage
        self._options = options
        self._ready: set[str] = set()
        self._cleared = time.monotonic()

    @property
    def catalog(self) -> Catalog:
        """See ``ports.Warehouse``."""
        return self._lake.catalog

    @property
    def positions(self) -> Mapping[StreamPartition, Position]:
        """See ``ports.Warehouse``."""
        return self._lake.positions

    @property
    def newest_erasure_us(self) -> int:
        """See ``ports.Warehouse``."""
        return self._lake.newest_erasure_us

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if schema in self._ready:
            return
        try:
            self._make_tables(schema)
        except Unavailable:  # another process may have made them; how it stands now has been read
            self._make_tables(schema)
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``."""
        started, started_us = time.perf_counter(), clock_us()
        before = self.catalog
        with self._lake.acting(load.positions):
            draft = Draft(self._storage, self._lake.tables, writes=keep)
            with discarding(draft):
                for name in load.clears:
                    draft.empty(name)
                done = [draft.take(table) for table in load.tables]
            if not keep:
                return done
            with self._lake.committing(draft, load.positions) as transaction:
                transaction.move(load.positions)
                transaction.count(load.counts)
                transaction.add_changes(list(changes_of(done, before)), started_us)
                rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
                milliseconds = (time.perf_counter() - started) * 1_000
                entry = LoadEntry(load.stream, started_us, milliseconds, load.events, rows, size, len(done))
                transaction.log(entry, started_us - _LOG_US)
        self._tidy({(table.schema, table.table) for table in done})
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        found: set[str] = set()
        sought = pa.array(list(values), pa.string())
        with self._lake.acting():
            for name in self._lake.tables[schema, table].files if len(sought) else ():
                for _, batch in batches(self._storage, name, [column]):
                    if batch.num_columns:
                        found.update(batch.column(0).filter(pc.is_in(batch.column(0), sought)).to_pylist())
        return found

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.counts()

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.documents()

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        with self._lake.database.writing() as transaction:
            transaction.put_document(document)

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. What others load meanwhile is looked through once they have to wait."""
        with self._lake.acting():
            erasing = erasure.Erasing(self._storage, erasures)
            erasing.look_through(self._lake.tables)
            return self._lake.erase(erasing, now_us)

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.tombstones(digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with translated():
            for store, rows in erasure.holdings(self._storage, self._lake.committed(), person):
                take(store, rows)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.oldest_unrewritten_us()

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        with translated():
            return query.run(self._storage, self._lake.committed(), question, self._options)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        with translated():
            return query.stream(self._storage, self._lake.committed(), question, self._options, take)

    def place(self, schema: str, table: str) -> str:
        """See ``ports.Warehouse``."""
        return place(schema, table)

    def literal(self, text: str) -> str:
        """See ``ports.Warehouse``."""
        return literal(text)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.loads(limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        with self._lake.database.reading() as transaction:
            return transaction.changes(schema)

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        self._lake.database.close()

    def _make_tables(self, schema: str) -> None:
        with self._lake.acting():
            draft = Draft(self._storage, self._lake.tables)
            known = self.catalog.get(schema, {})
            for name, columns in STARTING_TABLES.items():
                if name not in known:
                    draft.of((schema, name), columns)
            for name, columns in known.items():
                starting = STARTING_TABLES.get(name, TRACK_TABLE_COLUMNS if is_event_table(name, columns) else {})
                draft.of((schema, name), {}).alter(starting, ())
            if draft.is_changed:
                with self._lake.committing(draft):
                    pass

    def _tidy(self, touched: set[Name]) -> None:
        """Makes one of many small files, and deletes what was replaced long enough ago.

        The load before it is committed, so nothing that goes wrong here may look as if the load had failed. It is done the next time.
        """
        try:
            self._make_tidy(touched)
        except Exception as error:  # noqa: BLE001 (see above)
            _log.warning("warehouse.tidying_failed", error=type(error).__name__)

    def _make_tidy(self, touched: set[Name]) -> None:
        with self._lake.acting():
            draft = Draft(self._storage, self._lake.tables)
            with discarding(draft):
                is_worth_it = compaction.compact(self._storage, self._lake.tables, touched, draft)
            if is_worth_it:
                with self._lake.committing(draft):
                    pass
            if time.monotonic() - self._cleared >= _CLEAR_EVERY_SECONDS:
                self._cleared = time.monotonic()
                self._clear(GRACE_US)

    def _clear(self, grace_us: int) -> None:
        """Deletes files that were replaced longer ago."""
        with self._lake.database.reading() as transaction:
            names = transaction.garbage(clock_us() - grace_us, _CLEARED_AT_ONCE)
        if names:
            self._storage.delete(names)
            with self._lake.database.writing() as transaction:
                transaction.forget_garbage(names)
