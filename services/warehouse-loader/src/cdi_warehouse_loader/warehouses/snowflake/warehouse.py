"""A warehouse in Snowflake: shared by all replicas of the loader.

One transaction per load, see ``loading``; tables are altered before it, see ``altering``, and stay altered whatever becomes of it. Four
sessions: the loader's, one that holds the catalog's lock while the loader's alters tables, one for reading beside them, and one for queries
of people, which may log in as another user or role. The state that this process believes in is compared with the warehouse's in every load,
under the lock, so whatever another process has done meanwhile, or a commit whose answer was lost, is found before anything is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import msgspec

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import json_text
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.changes import changed
from cdi_warehouse_loader.warehouses.snowflake import erasure, rewriting, sql, staging, state
from cdi_warehouse_loader.warehouses.snowflake.addresses import addresses
from cdi_warehouse_loader.warehouses.snowflake.altering import Altering, Overtaken, lacking
from cdi_warehouse_loader.warehouses.snowflake.loading import LoadTransaction
from cdi_warehouse_loader.warehouses.snowflake.query import Asking
from cdi_warehouse_loader.warehouses.snowflake.session import DEPENDENCY, Refused, Session

_FOLD_EVERY: Final = 500
"""Loads between two foldings of positions and counts, and two cleanings of the log."""


def open_warehouse(options: Options) -> SnowflakeWarehouse:
    """Connects, and makes what the loader needs for itself.

    Raises:
        Unavailable: Snowflake does not answer, or does not let the loader in.
    """
    try:
        own, asking = addresses(options.url)
    except ValueError as error:
        raise Unavailable(DEPENDENCY, str(error), retry_after=1.0) from None
    warehouse = SnowflakeWarehouse(Session(own), Session(own), Session(own), Asking(asking))
    try:
        warehouse.begin()
    except BaseException:
        warehouse.close()
        raise
    return warehouse


class SnowflakeWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``.

    Args:
        loading: the session of the loader's thread.
        guard: the one that holds the catalog's lock while that alters tables.
        reading: the session of the other thread.
        asking: that of people's queries, in the other thread.
    """

    clean_rooms: Final = None
    broken: Final = None
    exclusive: Final = False
    wants_reopening: Final = False

    def __init__(self, loading: Session, guard: Session, reading: Session, asking: Asking) -> None:
        self._loading, self._guard, self._reading, self._asking = loading, guard, reading, asking
        self._altering = Altering(guard, loading)
        self._state = state.State(0, 0, {}, {}, {}, {})
        self._ready: set[str] = set()
        self._unfolded = _FOLD_EVERY

    @property
    def catalog(self) -> Catalog:
        """See ``ports.Warehouse``."""
        return self._state.catalog

    @property
    def positions(self) -> Mapping[StreamPartition, Position]:
        """See ``ports.Warehouse``."""
        return self._state.positions

    @property
    def newest_erasure_us(self) -> int:
        """See ``ports.Warehouse``."""
        return self._state.newest_erasure_us

    def begin(self) -> None:
        """Makes the loader's own tables, and gives the schemas of an older loader what they lack."""
        with _making(sql.OWN):
            there = state.own_tables(self._loading)
            if not there:
                self._loading.run(f"create schema if not exists {sql.quoted(sql.OWN)}")
            for name, statement in sql.OWN_TABLES.items():
                if name not in there:
                    self._loading.run(statement)
            self._look()
        for schema in self._state.schemas:
            self.ensure_tables(schema)

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if schema in self._ready:
            return
        with _making(schema):
            if self._lacks(schema):
                self._look()  # another process may have made it
            if self._lacks(schema):
                with self._altering.holding():
                    self._look()
                    self._altering.finish(self._state)
                    self._altering.complete(schema, self._state)
                self._look()
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``. Tables and columns stay that a load has made which then fails."""
        with _translated():
            tables = staging.stage(self._loading, load.tables, self.catalog)
            done = [table.load for table in tables]
            if not keep:
                staging.attempt(self._loading, tables, self.catalog)
                return done
            try:
                planned = self._altered(done)
                with self._loading.transaction():
                    folds = self._unfolded >= _FOLD_EVERY
                    LoadTransaction(self._loading, planned, folds=folds).do(load, tables)
            except (Refused, Unavailable):
                with contextlib.suppress(Refused, Unavailable):
                    self._look()
                raise
            self._unfolded = 1 if folds else self._unfolded + 1
            self._state = replace(planned, positions={**planned.positions, **load.positions})
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        name = sql.quoted(column)
        among = sql.AMONG.format(column=name)
        with _translated():
            found = self._loading.rows(f"select distinct {name} from {sql.place(schema, table)} where {among}", json_text(list(values)))
        return {value for (value,) in found}

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with _translated():
            return state.counts(self._reading)

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        columns = "workspace_id, name, purposes, schema_name, version, frozen_sources"
        with _translated():
            rows = self._loading.rows(f"select {columns} from {sql.WAREHOUSES} order by workspace_id, name")
        lists = msgspec.json.Decoder(tuple[str, ...]).decode
        return [
            Document(workspace_id, name, lists(purposes), schema, version, lists(frozen))
            for workspace_id, name, purposes, schema, version, frozen in rows
        ]

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        key = (document.workspace_id, document.name)
        lists = (json_text(list(document.purposes)), document.schema, document.version, json_text(list(document.frozen_sources)))
        with _translated(), self._loading.transaction():
            self._loading.run(sql.hold(uuid4().hex))
            self._loading.run(f"delete from {sql.WAREHOUSES} where workspace_id = ? and name = ?", *key)
            self._loading.run(f"insert into {sql.WAREHOUSES} select ?, ?, ?, ?, ?, ?", *key, *lists)

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. Other processes load nothing meanwhile; what they have added to the tables is seen first."""
        with _translated():
            people, tombstones = self._loading.staged([erasure.people(erasures), erasure.tombstone_rows(erasures, now_us)])
            holder = uuid4().hex
            with self._loading.transaction():
                self._loading.run(sql.hold(holder))
                catalog = state.read(self._loading).catalog
                erased = erasure.erase(self._loading, catalog, erasures, now_us, (people, tombstones))
                self._loading.run(sql.ALTERED)
                if self._loading.rows(sql.HOLDER) != [(holder,)]:
                    raise Overtaken("waited so long that this erasure's transaction was taken back")
            self._look()
        return erased

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with _translated():
            return erasure.tombstones(self._loading, digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with _translated():
            (people,) = self._reading.staged([erasure.people([person])])
            with self._reading.transaction(keep=False):
                erasure.holdings(self._reading, state.read(self._reading).catalog, person, people, take)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``."""
        with _translated():
            return rewriting.oldest_us(self._loading)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        return self._asking.query(question)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        return self._asking.stream(question, take)

    def place(self, schema: str, table: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.place(schema, table)

    def literal(self, text: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.literal(text)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        with _translated():
            return state.loads(self._loading, limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        with _translated():
            return state.schema_changes(self._loading, schema)

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        for session in (self._loading, self._guard, self._reading, self._asking):
            session.close()

    def _look(self) -> None:
        """Reads the state anew."""
        self._state = state.read(self._loading)

    def _lacks(self, schema: str) -> bool:
        return bool(self._state.unfinished) or any(True for _ in lacking(schema, self._state))

    def _altered(self, loads: Sequence[TableLoad]) -> state.State:
        """Alters the tables as loads need them; the state that they are loaded on.

        Raises:
            Overtaken: another process has altered tables.
        """
        before = self._state
        changing = [load for load in loads if load.added or load.widened or load.table not in before.catalog.get(load.schema, {})]
        if not changing and not before.unfinished:
            return before
        with self._altering.holding() as version:
            if version != before.version:
                raise Overtaken("altered tables, or erased people")
            self._altering.finish(before)
            self._altering.alter(changing, before)
        return replace(before, version=before.version + 1, catalog=changed(before.catalog, loads), unfinished={})


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise refused.fault() from None


@contextlib.contextmanager
def _making(schema: str) -> Iterator[None]:
    """Whatever is refused of making tables says nothing about events: it is for the operator to mend, and for the loader to wait."""
    try:
        yield
    except Refused as refused:
        raise Unavailable(DEPENDENCY, f"the tables of schema {schema} cannot be made: {refused}", retry_after=1.0) from None
