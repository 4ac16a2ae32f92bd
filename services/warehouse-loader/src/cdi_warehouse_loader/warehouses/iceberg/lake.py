"""The lake as this process believes it to be. Under the catalog's lock that is compared with how it is, before anything changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.erasure import Erased
from cdi_warehouse_loader.domain.load import Catalog, Position, StreamPartition
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY, CatalogDatabase, CommitUnknown, State, Transaction
from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Name
from cdi_warehouse_loader.warehouses.iceberg.erasure import Erasing
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable, read


class Lake:
    """Its tables, with their catalog and files.

    Args:
        database: the catalog.
        storage: the files.

    Attributes:
        tables: as of the last look.
        catalog: their columns.
        positions: how far each partition is loaded, as it was when a load of it was last committed or refused.
        newest_erasure_us: see ``ports.Warehouse``.
    """

    def __init__(self, database: CatalogDatabase, storage: Storage) -> None:
        self.database = database
        self.storage = storage
        self.tables: Mapping[Name, LakeTable] = {}
        self.catalog: Catalog = {}
        self.positions: Mapping[StreamPartition, Position] = {}
        self.newest_erasure_us = 0
        self._generation = 0
        with translated():
            state = self._read()
            self._take_over(state, self._tables_at(state.pointers), state.positions)

    @contextlib.contextmanager
    def acting(self, planned: Iterable[StreamPartition] = ()) -> Iterator[None]:
        """When the block raises ``Unavailable``, this process has looked how the lake stands, if it could.

        Args:
            planned: partitions of the load, which whoever called is going to plan anew then.
        """
        try:
            with translated():
                yield
        except Unavailable:
            with contextlib.suppress(Unavailable, OSError):
                state = self._read()
                self._take_over(state, self._tables_at(state.pointers), planned)
            raise

    @contextlib.contextmanager
    def committing(self, draft: Draft, positions: Iterable[StreamPartition] = ()) -> Iterator[Transaction]:
        """Commits a draft with what the block adds. Nothing of it was done when this raises, but for ``CommitUnknown``.

        Args:
            draft: what becomes of tables.
            positions: which partitions must stand where this process believes them to.

        Raises:
            Unavailable: another process was there.
        """
        with discarding(draft), self.database.writing() as transaction:
            state = transaction.state()
            self._check(state, positions)
            tables = self._tables_at(state.pointers)
            staged = _pointed(transaction, state, tables, draft)
            yield transaction
            state = transaction.state()
        self._take_over(state, {**tables, **staged}, positions)

    def erase(self, erasing: Erasing, now_us: int) -> Erased:
        """Commits an erasure, on whatever the lake is by then."""
        with self.database.writing() as transaction:
            state = transaction.state()
            tables = self._tables_at(state.pointers)
            draft = Draft(self.storage, tables)
            with discarding(draft):
                erased = erasing.erase(tables, draft)
                staged = _pointed(transaction, state, tables, draft)
                transaction.remember(erasing.digests(), now_us)
                state = transaction.state()
        self._take_over(state, {**tables, **staged})
        return erased

    def committed(self) -> Mapping[Name, LakeTable]:
        """The tables as committed now; what this process has not seen yet is read."""
        with self.database.reading() as transaction:
            pointers = transaction.pointers()
        return self._tables_at(pointers)

    def _read(self) -> State:
        with self.database.reading() as transaction:
            return transaction.state()

    def _check(self, state: State, positions: Iterable[StreamPartition]) -> None:
        if any(state.positions.get(where) != self.positions.get(where) for where in positions):
            raise Unavailable(DEPENDENCY, "another process has loaded what this one was about to", retry_after=0.1)
        if (state.newest_erasure_us, state.generation) != (self.newest_erasure_us, self._generation):
            raise Unavailable(DEPENDENCY, "people were erased since the load was planned", retry_after=0.1)

    def _tables_at(self, pointers: Mapping[Name, str]) -> dict[Name, LakeTable]:
        known = self.tables
        return {
            name: known[name] if name in known and known[name].location == location else read(self.storage, location)
            for name, location in pointers.items()
        }

    def _take_over(self, state: State, tables: Mapping[Name, LakeTable], planned: Iterable[StreamPartition] = ()) -> None:
        """Believes from now on what was read.

        Positions only of the ``planned`` partitions: a load of others may have been planned by what was believed so far, and has to find
        that it was wrong.
        """
        catalog: dict[str, dict[str, Any]] = {}
        for (schema, name), table in tables.items():
            catalog.setdefault(schema, {})[name] = table.columns
        self.catalog, self.tables = catalog, tables
        self.positions = {**self.positions, **{where: state.positions[where] for where in planned if where in state.positions}}
        self.newest_erasure_us, self._generation = state.newest_erasure_us, state.generation


def clock_us() -> int:
    """The time, microseconds since 1970."""
    return time.time_ns() // 1_000


@contextlib.contextmanager
def discarding(draft: Draft) -> Iterator[None]:
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
def translated() -> Iterator[None]:
    """Turns what pyarrow raises into faults."""
    try:
        yield
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise OutOfMemory(DEPENDENCY, "the load needs more memory than there is") from error
    except OSError as error:
        raise Unavailable(DEPENDENCY, f"the files of the lake cannot be reached: {type(error).__name__}", retry_after=1.0) from error


def _pointed(transaction: Transaction, state: State, tables: Mapping[Name, LakeTable], draft: Draft) -> Mapping[Name, LakeTable]:
    """Has the catalog name what a draft leads to; the tables of the draft."""
    staged = draft.staged(tables)
    transaction.point(state.pointers, {name: table.location for name, table in staged.items()})
    replaced = {old for name, table in staged.items() if name in tables for old in tables[name].names - table.names}
    transaction.throw_away(replaced, clock_us())
    return staged
