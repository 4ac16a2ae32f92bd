"""A warehouse in Postgres: shared by all replicas of the loader.

One transaction per load, see ``loading``. Three sessions: the loader's, one for reading beside it, and one for queries of people, which may
log in as another role. The state that this process believes in is compared with the warehouse's in every load, under locks, so whatever
another process has done meanwhile, or a commit whose answer was lost, is found before anything is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import LoadEntry, Question, Rows, SchemaChange
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.postgresql import erasure, rewriting, schemas, sql, state
from cdi_warehouse_loader.warehouses.postgresql.consenting import Asking
from cdi_warehouse_loader.warehouses.postgresql.loading import LoadTransaction, NeedsToBeAlone, Overtaken
from cdi_warehouse_loader.warehouses.postgresql.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.postgresql.session import DEPENDENCY, READ_ONLY, Refused, Session, addresses

_FORGET_EVERY: Final = 1_000
"""Loads between two cleanings of their log."""


def open_warehouse(options: Options) -> PostgresWarehouse:
    """Connects, and makes what the loader needs for itself.

    Raises:
        Unavailable: the server does not answer, or does not let the loader in.
    """
    own, asking = addresses(options.url)
    loading, reading = Session(own), Session(own)
    asks = Asking(reading, None) if asking == own else Asking(Session(asking), reading)
    warehouse = PostgresWarehouse(loading, reading, asks)
    try:
        warehouse.begin()
    except BaseException:
        warehouse.close()
        raise
    return warehouse


class PostgresWarehouse:
    """See ``ports.Warehouse``; made by ``open_warehouse``.

    Args:
        loading: the session of the loader's thread.
        reading: the session of the other thread.
        asking: people's queries, in the other thread.
    """

    clean_rooms: Final = None
    broken: Final = None
    exclusive: Final = False
    wants_reopening: Final = False

    def __init__(self, loading: Session, reading: Session, asking: Asking) -> None:
        self._loading, self._reading, self._asking = loading, reading, asking
        self._state = state.State(0, 0, {}, {}, frozenset(), {})
        self._ready: set[str] = set()
        self._alone_next = False
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
        with _making("_cdi"):
            with self._loading.transaction():
                self._loading.rows(sql.BE_FIRST)
                self._loading.run(sql.create_schema("_cdi"))
                for statement in (*sql.OWN_TABLES, sql.FORGET_LOG):
                    self._loading.run(statement)
            self._look()
        for schema in self._state.schemas:
            self.ensure_tables(schema)

    def ensure_tables(self, schema: str) -> None:
        """See ``ports.Warehouse``."""
        if schema in self._ready:
            return
        with _making(schema):
            if any(True for _ in schemas.missing(schema, self._state)):
                with self._loading.transaction():
                    self._loading.run(sql.LOCK_ALONE)
                    statements = list(schemas.missing(schema, state.read(self._loading)))
                    for statement in [*statements, sql.ALTERED] if statements else ():
                        self._loading.run(statement)
                self._look()
        self._ready.add(schema)

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """See ``ports.Warehouse``."""
        with _translated():
            transaction = LoadTransaction(self._loading, self._state, alone=self._alone_next)
            try:
                with self._loading.transaction(keep=keep):
                    done = transaction.do(load)
            except NeedsToBeAlone:
                self._alone_next = True
                raise
            except (Refused, Unavailable) as error:
                self._after_failure(error)
                raise
            if keep:
                self._alone_next = False
                self._state = transaction.after(load, done)
                self._forget()
        return done

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """See ``ports.Warehouse``."""
        name = sql.quoted(column)
        stored = {value.replace("\0", "\ufffd"): value for value in values}
        with _translated():
            found = self._loading.rows(
                f"select distinct {name} from {sql.place(schema, table)} where {name} = any($1::text[])", list(stored)
            )
        return {stored[value] for (value,) in found}

    def counts(self) -> Mapping[CountKey, int]:
        """See ``ports.Warehouse``."""
        with _translated():
            return state.counts(self._reading)

    def documents(self) -> Sequence[Document]:
        """See ``ports.Warehouse``."""
        with _translated():
            rows = self._loading.rows(sql.READ_DOCUMENTS)
        return [
            Document(workspace_id, name, tuple(purposes), schema, version, tuple(frozen))
            for workspace_id, name, purposes, schema, version, frozen in rows
        ]

    def put_document(self, document: Document) -> None:
        """See ``ports.Warehouse``."""
        names = (list(document.purposes), document.schema, document.version, list(document.frozen_sources))
        values = (document.workspace_id, document.name, *names)
        with _translated():
            self._loading.run(sql.WRITE_DOCUMENT, *values)

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """See ``ports.Warehouse``. Other processes load nothing meanwhile; what they have added to the tables is seen first."""
        with _translated():
            with self._loading.transaction():
                self._loading.run(sql.LOCK_ALONE)
                erased = erasure.erase(self._loading, state.read(self._loading).catalog, erasures, now_us)
                self._loading.run(sql.ALTERED)
            self._look()
        return erased

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """See ``ports.Warehouse``."""
        with _translated():
            return erasure.tombstones(self._loading, digests)

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """See ``ports.Warehouse``."""
        with _translated(), self._reading.transaction(keep=False):
            erasure.holdings(self._reading, state.read(self._reading).catalog, person, take)

    def oldest_unrewritten_us(self) -> int:
        """See ``ports.Warehouse``, and ``rewriting.oldest_us``."""
        with _translated():
            return rewriting.oldest_us(self._loading)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        return run_query(self._asking, question, self._state.schemas)

    def stream(self, question: Question, take: Callable[..., None]) -> bool:
        """See ``ports.Warehouse``."""
        return stream_query(self._asking, question, self._state.schemas, take)

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
        for session in (self._loading, self._reading, self._asking.session):
            session.close()

    def _look(self) -> None:
        """Reads the state anew."""
        with self._loading.transaction(state.ONE_MOMENT):
            self._state = state.read(self._loading)

    def _after_failure(self, error: Exception) -> None:
        """Looks anew, from a new session if the server has become one that only reads: another one may be the first now.

        Raises:
            Overtaken: tables are not as the load took them to be, which may be why it was refused.
        """
        if isinstance(error, Refused) and error.state == READ_ONLY:
            self._loading.close()
        before = self._state.catalog
        with contextlib.suppress(Refused, Unavailable):
            self._look()
        if self._state.catalog != before:
            raise Overtaken("altered tables") from None

    def _forget(self) -> None:
        self._loads += 1
        if self._loads % _FORGET_EVERY == 0:
            with contextlib.suppress(Refused, Unavailable):  # the load is done; the next time will do
                self._loading.run(sql.FORGET_LOG)


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
