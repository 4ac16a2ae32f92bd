"""BigQuery as a warehouse, shared by any number of loaders; see ``loading`` for how a load is done.

The state that this process believes in is compared with the warehouse's in every load, so whatever another process has done meanwhile, or a
script whose answer was lost, is found before anything is written. Tables are changed before the transaction, in which BigQuery allows no
such thing: what a load that failed has made of them stays.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import xxhash

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.bigquery import erasure, identity, loading, rewriting, sql, staging, state
from cdi_warehouse_loader.warehouses.bigquery.connection import Address, Connection, Refused, passing
from cdi_warehouse_loader.warehouses.bigquery.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.changes import changes_of

_VALUES: Final = 5_000
"""Values that one statement looks for."""

_FORGET_EVERY: Final = 1_000
"""Loads between two cleanings of their log."""


def open_warehouse(options: Options) -> BigQueryWarehouse:
    """Connects, and makes what the loader needs for itself.

    Raises:
        Unavailable: BigQuery does not answer, or does not let the loader in.
    """
    address = Address.of(options.url)
    loading_, reading = Connection(address, address.credentials), Connection(address, address.credentials)
    warehouse = BigQueryWarehouse(loading_, reading, Connection(address, address.query_credentials))
    try:
        warehouse.begin()
    except BaseException:
        warehouse.close()
        raise
    return warehouse


class BigQueryWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``.

    Args:
        loading: of the loader's thread.
        reading: of the other thread.
        asking: of people's queries, in the other thread.
    """

    clean_rooms: Final = None
    broken: Final = None
    exclusive: Final = False
    wants_reopening: Final = False

    def __init__(self, loading: Connection, reading: Connection, asking: Connection) -> None:
        self._loading, self._reading, self._asking = loading, reading, asking
        self._state = state.State(0, 0, {}, {}, {})
        self._is_stale = True
        self._ready: set[str] = set()
        self._loads = 0

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
        with passing("the tables cannot be made"):
            dataset = sql.create_schema(self._loading.address.dataset)
            self._loading.run(sql.script([*sql.OWN_TABLES, dataset, sql.FORGET_LOG]))
        self._look()
        for schema in self._state.schemas:
            self.ensure_tables(schema)

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if self._is_stale:
            self._look_at_tables()
        if schema in self._ready:
            return
        views = list(identity.views(schema))
        digest = xxhash.xxh3_64_hexdigest("".join(views).encode())
        missing = list(sql.starting_tables(schema, self._state.catalog.get(schema, {})))
        if missing or self._state.schemas.get(schema) != digest:
            noted = f"INSERT INTO `{sql.OWN}`.`schemas` (`schema_name`, `views`, `noted_at`) "
            noted += f"VALUES ({sql.text(schema)}, {sql.text(digest)}, CURRENT_TIMESTAMP())"
            with passing("the tables cannot be made"):
                self._loading.run(sql.script([sql.create_schema(schema), *missing, *views, noted]))
            self._look_at_tables()
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``. ``keep=False`` lets BigQuery read all rows, and keep none."""
        started = time.perf_counter()
        if self._is_stale:
            self._look_at_tables()
        tables = [staging.checked(table, self._columns(table)) for table in load.tables]
        done = [table.done() for table in tables]
        loading.check_tables(done, load.clears)
        self._is_stale = keep
        with self._seen_again_if_it_fails(), staging.staged(self._loading, [table.rows for table in tables]) as rows:
            if not keep:
                return done
            self._clear()
            self._alter(tables)
            script = loading.commit(
                load,
                list(zip(done, rows, strict=True)),
                self._state.version,
                self._state.positions,
                lambda: (time.perf_counter() - started) * 1_000,
            )
            loading.in_turn(self._loading, script)
            self._state = replace(self._state, positions={**self._state.positions, **load.positions})
            if later := load.clears[sql.MOST_TABLES :]:
                self._state = replace(self._state, version=self._state.version + 1, clears=later)
                with contextlib.suppress(Refused, Unavailable):  # the load is done; the next one begins with these
                    self._clear()
        self._is_stale = False
        self._forget()
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        name, wanted = sql.column_of(column), list(values)
        found: set[str] = set()
        with passing():
            for start in range(0, len(wanted), _VALUES):
                statement = f"SELECT DISTINCT {name} FROM {sql.place(schema, table)} WHERE {name} IN UNNEST(@given)"
                found.update(value for (value,) in self._loading.rows(statement, given=wanted[start : start + _VALUES]))
        return found

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with passing():
            return state.counts(self._reading)

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        with passing():
            return state.documents(self._loading)

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        loading.in_turn(self._loading, sql.transaction(state.put_document(document)))

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. Tombstones come first: from then on no process can load what was planned without them, so what is
        deleted after does not come back, and who dies over it is told again.
        """
        self._is_stale = True
        with passing():
            erasure.remember(self._loading, erasures, now_us)
            self._state = replace(state.read(self._loading), positions=self._state.positions)
            return erasure.erase(self._loading, self._state.catalog, erasures)

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with passing():
            return erasure.tombstones(self._loading, digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with passing():
            erasure.holdings(self._reading, self._state.catalog, person, take)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``, and ``rewriting``."""
        with passing():
            return rewriting.oldest_us(self._loading)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        return run_query(self._asking, question)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        return stream_query(self._asking, question, take)

    def place(self, schema: str, table: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.place(schema, table)

    def literal(self, text: str) -> str:
        """See ``ports.Warehouse``."""
        return sql.text(text)

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """See ``ports.Warehouse``."""
        with passing():
            return state.loads(self._loading, limit)

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """See ``ports.Warehouse``."""
        with passing():
            return state.schema_changes(self._loading, schema)

    def close(self) -> None:
        """See ``ports.Warehouse``."""
        for connection in (self._loading, self._reading, self._asking):
            connection.close()

    def _columns(self, table: TableLoad) -> Mapping[str, ColumnType]:
        return self._state.catalog.get(table.schema, {}).get(table.table, {})

    def _look(self) -> None:
        """Reads the state anew. Only where no load is planned: what one was planned by is what it has to be compared with."""
        with passing():
            self._state = state.read(self._loading)
        self._is_stale = False

    def _look_at_tables(self) -> None:
        """Reads the tables anew, and nothing that a load may have been planned by already."""
        with passing():
            schemas = state.read_schemas(self._loading)
            self._state = replace(self._state, schemas=schemas, catalog=state.read_catalog(self._loading, schemas))
        self._is_stale = False

    def _clear(self) -> None:
        """Empties what a rebuild has left to be emptied; who was overtaken sees it after.

        Raises:
            Overtaken: another process has emptied it.
            Unavailable: BigQuery cannot now.
        """
        for cleared in list(sql.chunks(self._state.clears)):
            loading.in_turn(self._loading, loading.clear(cleared))
            self._state = replace(self._state, clears=[place for place in self._state.clears if place not in set(cleared)])

    def _alter(self, tables: Sequence[TableLoad]) -> None:
        """Makes what the loads need, once that is in the history; who was overtaken sees it after.

        Raises:
            Overtaken: another process has changed tables, or has made a column of another type.
            Unavailable: BigQuery refuses, or cannot now.
        """
        changed = [one for one in tables if one.added or one.widened or not self._columns(one)]
        if not changed:
            return
        before = self._state
        changes = [(*where, change.value, kind) for *where, change, kind in changes_of(changed, before.catalog)]
        loading.in_turn(self._loading, loading.announcement(before.version, changes))  # type: ignore[arg-type]  # five texts each
        with passing("the tables cannot be made"):
            statements = [statement for one in changed for statement in sql.change_table(one, is_new=not self._columns(one))]
            self._loading.run(sql.script(statements))
        with passing():
            self._state = replace(state.read(self._loading), positions=before.positions)
        for one in changed:
            expected = {**one.added, **dict.fromkeys(one.widened, ColumnType.DOUBLE)}
            made = {name: sql.TYPES[kind] for name, kind in self._columns(one).items()}
            if any(made.get(name) != sql.TYPES[kind] for name, kind in expected.items()):
                raise loading.Overtaken
        if self._state.version != before.version + 1:
            raise loading.Overtaken

    @contextlib.contextmanager
    def _seen_again_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (Refused, Unavailable):
            self._is_stale = True
            with contextlib.suppress(Unavailable):
                self._look()
            raise

    def _forget(self) -> None:
        self._loads += 1
        if self._loads % _FORGET_EVERY == 0:
            with contextlib.suppress(Refused, Unavailable):  # the load is done; the next time will do
                self._loading.run(sql.FORGET_LOG)
