"""The lake: Iceberg tables of Parquet files, with a catalog in SQLite or Postgres.

A load writes its data files first, where nobody looks for them. Then, one process at a time, it writes what the tables consist of from now
on, and one transaction of the catalog's database names that, for all tables together, with positions, counts and log. So a load is all
or nothing over any number of tables, though Iceberg itself commits one table at a time.

Facts that shape this (pyiceberg 0.12): the SQL catalog keeps one row per table, which names its metadata file; nothing else says what a
table is. Files that no such row leads to are not there for anybody: a load that dies leaves some, and ``rewrite`` deletes them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cdi_kernel.faults import Unavailable
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.changes import changes_of
from cdi_warehouse_loader.warehouses.iceberg import compaction, erasure, query
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY, CatalogDatabase, CommitUnknown, State, Transaction
from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Name
from cdi_warehouse_loader.warehouses.iceberg.files import batches
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage, opened
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable, read

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
    with _translated():
        database, storage = opened(options)
        return IcebergWarehouse(CatalogDatabase(database), storage, options)


class IcebergWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``."""

    clean_rooms = None
    broken = None

    def __init__(self, database: CatalogDatabase, storage: Storage, options: Options) -> None:
        self.catalog: Catalog = {}
        self.positions: Mapping[StreamPartition, Position] = {}
        self.newest_erasure_us = 0
        self._database = database
        self._storage = storage
        self._options = options
        self._tables: dict[Name, LakeTable] = {}
        self._generation = 0
        self._ready: set[str] = set()
        self._cleared = time.monotonic()
        self._refresh(everything=True)

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
        started, started_us = time.perf_counter(), _now_us()
        before = self.catalog
        with self._acting(load.positions):
            draft = Draft(self._storage, self._tables, writes=keep)
            with _discarding(draft):
                if load.clears:
                    draft.empty(load.clears)
                done = [draft.take(table) for table in load.tables]
            if not keep:
                return done
            with self._committing(draft, load.positions) as transaction:
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
        with self._acting():
            for name in self._tables[schema, table].files if len(sought) else ():
                for _, batch in batches(self._storage, name, [column]):
                    if batch.num_columns:
                        found.update(batch.column(0).filter(pc.is_in(batch.column(0), sought)).to_pylist())
        return found

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.counts()

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.documents()

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        with self._database.writing() as transaction:
            transaction.put_document(document)

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. What others load meanwhile is looked through once they have to wait."""
        with self._acting():
            erasing = erasure.Erasing(self._storage, erasures)
            erasing.look_through(self._tables)
            with self._database.writing() as transaction:
                state = transaction.state()
                tables = self._tables_of(state)
                draft = Draft(self._storage, tables)
                with _discarding(draft):
                    erased = erasing.erase(tables, draft)
                    staged = draft.staged(tables)
                    self._point(transaction, state, tables, staged)
                    transaction.remember(erasing.digests(), now_us)
            self._take_over(state, {**tables, **staged})
            self.newest_erasure_us = max(state.newest_erasure_us, now_us)
        return erased

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.tombstones(digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with _translated():
            for store, rows in erasure.holdings(self._storage, self._committed(), person):
                take(store, rows)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.oldest_unrewritten_us()

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        with _translated():
            return query.run(self._storage, self._committed(), question, self._options)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        with _translated():
            return query.stream(self._storage, self._committed(), question, self._options, take)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.loads(limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        with self._database.reading() as transaction:
            return transaction.changes(schema)

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        self._database.close()

    def _make_tables(self, schema: str) -> None:
        with self._acting():
            draft = Draft(self._storage, self._tables)
            known = self.catalog.get(schema, {})
            for name, columns in STARTING_TABLES.items():
                if name not in known:
                    draft.of((schema, name), columns)
            for name, columns in known.items():
                starting = STARTING_TABLES.get(name, TRACK_TABLE_COLUMNS if is_event_table(name, columns) else {})
                draft.of((schema, name), {}).alter(starting, ())
            if draft.is_changed:
                with self._committing(draft):
                    pass

    @contextlib.contextmanager
    def _acting(self, planned: Iterable[StreamPartition] = ()) -> Iterator[None]:
        """When the block raises ``Unavailable``, this process has looked how the lake stands, if it could.

        Args:
            planned: partitions of the load, which whoever called is going to plan anew then.
        """
        try:
            with _translated():
                yield
        except Unavailable:
            with contextlib.suppress(Unavailable, OSError):
                self._refresh(planned)
            raise

    @contextlib.contextmanager
    def _committing(self, draft: Draft, positions: Iterable[StreamPartition] = ()) -> Iterator[Transaction]:
        """Commits a draft with what the block adds. Nothing of it was done when this raises, but for ``CommitUnknown``.

        Args:
            draft: what becomes of tables.
            positions: which partitions must stand where this process believes them to.

        Raises:
            Unavailable: another process was there.
        """
        with _discarding(draft), self._database.writing() as transaction:
            state = transaction.state()
            self._check(state, positions)
            tables = self._tables_of(state)
            staged = draft.staged(tables)
            self._point(transaction, state, tables, staged)
            yield transaction
            state = transaction.state()
        self._take_over(state, {**tables, **staged}, positions)

    def _check(self, state: State, positions: Iterable[StreamPartition]) -> None:
        if any(state.positions.get(where) != self.positions.get(where) for where in positions):
            raise Unavailable(DEPENDENCY, "another process has loaded what this one was about to", retry_after=0.1)
        if (state.newest_erasure_us, state.generation) != (self.newest_erasure_us, self._generation):
            raise Unavailable(DEPENDENCY, "people were erased since the load was planned", retry_after=0.1)

    def _point(self, transaction: Transaction, state: State, tables: Mapping[Name, LakeTable], staged: Mapping[Name, LakeTable]) -> None:
        transaction.point(state.pointers, {name: table.location for name, table in staged.items()})
        replaced = {old for name, table in staged.items() if name in tables for old in tables[name].names - table.names}
        transaction.throw_away(replaced, _now_us())

    def _tidy(self, touched: set[Name]) -> None:
        """Makes one of many small files, and deletes what was replaced long enough ago.

        The load before it is committed, so nothing that goes wrong here may look as if the load had failed. It is done the next time.
        """
        try:
            self._make_tidy(touched)
        except Exception as error:  # noqa: BLE001 (see above)
            _log.warning("warehouse.tidying_failed", error=type(error).__name__)

    def _make_tidy(self, touched: set[Name]) -> None:
        with self._acting():
            draft = Draft(self._storage, self._tables)
            with _discarding(draft):
                is_worth_it = compaction.compact(self._storage, self._tables, touched, draft)
            if is_worth_it:
                with self._committing(draft):
                    pass
            if time.monotonic() - self._cleared >= _CLEAR_EVERY_SECONDS:
                self._cleared = time.monotonic()
                self._clear(GRACE_US)

    def _clear(self, grace_us: int) -> None:
        """Deletes files that were replaced longer ago."""
        with self._database.reading() as transaction:
            names = transaction.garbage(_now_us() - grace_us, _CLEARED_AT_ONCE)
        if names:
            self._storage.delete(names)
            with self._database.writing() as transaction:
                transaction.forget_garbage(names)

    def _committed(self) -> dict[Name, LakeTable]:
        """The tables as committed now; what this process has not seen yet is read."""
        with self._database.reading() as transaction:
            pointers = transaction.pointers()
        return self._tables_at(pointers)

    def _refresh(self, planned: Iterable[StreamPartition] = (), *, everything: bool = False) -> None:
        with self._database.reading() as transaction:
            state = transaction.state()
        self._take_over(state, self._tables_of(state), state.positions if everything else planned)
        self._ready &= self.catalog.keys()

    def _tables_of(self, state: State) -> dict[Name, LakeTable]:
        return self._tables_at(state.pointers)

    def _tables_at(self, pointers: Mapping[Name, str]) -> dict[Name, LakeTable]:
        known = self._tables
        return {
            name: known[name] if name in known and known[name].location == location else read(self._storage, location)
            for name, location in pointers.items()
        }

    def _take_over(self, state: State, tables: dict[Name, LakeTable], planned: Iterable[StreamPartition] = ()) -> None:
        """Believes from now on what was read.

        Positions only of the ``planned`` partitions: a load of others may have been planned by what was believed so far, and has to find
        that it was wrong.
        """
        catalog: dict[str, dict[str, Any]] = {}
        for (schema, name), table in tables.items():
            catalog.setdefault(schema, {})[name] = table.columns
        self.catalog = catalog
        self.positions = {**self.positions, **{where: state.positions[where] for where in planned if where in state.positions}}
        self.newest_erasure_us, self._generation = state.newest_erasure_us, state.generation
        self._tables = tables


@contextlib.contextmanager
def _discarding(draft: Draft) -> Iterator[None]:
    """Deletes what a draft has written when the block raises, unless it may be committed."""
    try:
        yield
    except CommitUnknown:
        raise
    except Exception:
        with contextlib.suppress(OSError):
            draft.discard()
        raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise OutOfMemory(DEPENDENCY, "the load needs more memory than there is") from error
    except OSError as error:
        raise Unavailable(DEPENDENCY, f"the files of the lake cannot be reached: {type(error).__name__}", retry_after=1.0) from error


def _now_us() -> int:
    return time.time_ns() // 1_000
