"""The catalog's database: which commit of each table holds, and what the loader knows of itself, changed in one transaction.

That is what makes a load over many tables all or nothing: files of all of them are written first, unseen, and a transaction of this
database then names them, and the positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import json_text
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Tombstone
from cdi_warehouse_loader.domain.load import CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import Change, LoadEntry, SchemaChange
from cdi_warehouse_loader.warehouses.iceberg import sql

DEPENDENCY: Final = "warehouse"
_LOCK_SECONDS: Final = 30
_PIECE: Final = 1_000
_Name = tuple[str, str]
"""Schema and table."""


class CommitUnknown(Unavailable):
    """The answer to a commit was lost: it may have been done."""


@dataclass(frozen=True, slots=True)
class State:
    """What a process believes of the lake.

    Attributes:
        pointers: metadata file of each table.
        positions: how far each partition is loaded.
        newest_erasure_us: when people were last erased; 0: never.
        generation: how often unseen files were cleared away.
    """

    pointers: Mapping[_Name, str]
    positions: Mapping[StreamPartition, Position]
    newest_erasure_us: int
    generation: int


class Transaction:
    """A connection in a transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def state(self) -> State:
        """All of the state."""
        return State(
            {(row[0], row[1]): row[2] for row in self._rows(sql.POINTERS)},
            {StreamPartition(row[0], row[1]): Position(row[2], row[3]) for row in self._rows(sql.POSITIONS)},
            self._number(sql.NEWEST_ERASURE),
            self._number(sql.GENERATION),
        )

    def pointers(self) -> dict[_Name, str]:
        """The metadata file of each table."""
        return {(row[0], row[1]): row[2] for row in self._rows(sql.POINTERS)}

    def point(self, before: Mapping[_Name, str], now: Mapping[_Name, str]) -> None:
        """Tables consist of other files from now on."""
        fresh = [_pointer(name, location) for name, location in now.items() if name not in before]
        moved = [{**_pointer(name, location), "before": before[name]} for name, location in now.items() if name in before]
        self._each(sql.ADD_NAMESPACE, [{"schema": schema} for schema in sorted({name[0] for name in now if name not in before})])
        self._each(sql.ADD_TABLE, fresh)
        self._each(sql.MOVE_TABLE, moved)

    def move(self, positions: Mapping[StreamPartition, Position]) -> None:
        """Partitions are loaded so far."""
        self._each(sql.MOVE_POSITION, [{**where._asdict(), **at._asdict()} for where, at in positions.items()])

    def count(self, counts: Mapping[CountKey, int]) -> None:
        """Adds to the audit."""
        self._each(
            sql.COUNT, [{**key._asdict(), "outcome": int(key.outcome), "events": events} for key, events in counts.items() if events]
        )

    def counts(self) -> dict[CountKey, int]:
        """The audit."""
        return {CountKey(row[0], row[1], row[2]): row[3] for row in self._rows(sql.COUNTS)}

    def log(self, entry: LoadEntry, forget_before_us: int) -> None:
        """Adds to the log of loads, which forgets the oldest."""
        values = {
            "stream": entry.stream,
            "started_us": entry.started_us,
            "milliseconds": entry.milliseconds,
            "events": entry.events,
            "rows": entry.rows,
            "size": entry.size,
            "tables": entry.tables,
        }
        self._each(sql.LOG, [values])
        self._each(sql.FORGET_LOADS, [{"before_us": forget_before_us}])

    def loads(self, limit: int) -> list[LoadEntry]:
        """The newest entries of the log."""
        return [LoadEntry(*row) for row in self._rows(sql.LOADS, most=limit)]

    def add_changes(self, changes: Sequence[tuple[str, ...]], now_us: int) -> None:
        """Adds to the history of schemas."""
        if changes:
            self._each(sql.ADD_CHANGES, [{"changed_us": now_us, "changes": json_text(list(changes))}])

    def changes(self, schema: str) -> list[SchemaChange]:
        """The history of a schema."""
        return [
            SchemaChange(at, name, table, column, Change(change), kind)
            for at, text in self._rows(sql.CHANGES)
            for name, table, column, change, kind in msgspec.json.decode(text)
            if name == schema
        ]

    def documents(self) -> list[Document]:
        """All documents."""
        return [
            Document(workspace, name, tuple(msgspec.json.decode(purposes)), schema, version, tuple(msgspec.json.decode(frozen)))
            for workspace, name, purposes, schema, version, frozen in self._rows(sql.DOCUMENTS)
        ]

    def put_document(self, document: Document) -> None:
        """A document in place of the one of its name."""
        values = {
            "workspace_id": document.workspace_id,
            "name": document.name,
            "purposes": json_text(list(document.purposes)),
            "schema": document.schema,
            "version": document.version,
            "frozen": json_text(list(document.frozen_sources)),
        }
        self._each(sql.PUT_DOCUMENT, [values])

    def remember(self, digests: Iterable[tuple[bytes, int]], now_us: int) -> None:
        """Leaves tombstones, each with the time until which events do not come back, and that something is to be rewritten."""
        ids = [{"digest": digest.hex(), "before_us": before, "erased_us": now_us} for digest, before in digests]
        self._each(sql.REMEMBER, ids)
        self._each(sql.ADD_UNREWRITTEN, [{"erased_us": now_us}])

    def tombstones(self, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
        """Those of the digests that have one."""
        found: dict[bytes, Tombstone] = {}
        for start in range(0, len(digests), _PIECE):
            piece = [digest.hex() for digest in digests[start : start + _PIECE]]
            found |= {bytes.fromhex(row[0]): Tombstone(row[1], row[2]) for row in self._rows_in(sql.TOMBSTONES, "digests", piece)}
        return found

    def oldest_unrewritten_us(self) -> int:
        """When the first was erased whose bytes are still there; 0: nobody."""
        return self._number(sql.OLDEST_UNREWRITTEN)

    def unrewritten(self) -> list[int]:
        """When whoever was erased whose bytes are still there."""
        return [row[0] for row in self._rows(sql.UNREWRITTEN)]

    def rewritten(self, done: Sequence[int]) -> None:
        """The bytes of these are gone."""
        for start in range(0, len(done), _PIECE):
            self._rows_in(sql.REWRITTEN, "done", done[start : start + _PIECE])

    def next_generation(self) -> None:
        """What others have written and not committed will not be."""
        self._connection.execute(sa.text(sql.NEXT_GENERATION))

    def throw_away(self, names: Iterable[str], now_us: int) -> None:
        """Files that no table consists of any more."""
        self._each(sql.ADD_GARBAGE, [{"name": name, "since_us": now_us} for name in sorted(names)])

    def garbage(self, before_us: int, limit: int) -> list[str]:
        """Files that were thrown away before."""
        return [row[0] for row in self._rows(sql.GARBAGE, before_us=before_us, most=limit)]

    def forget_garbage(self, names: Sequence[str]) -> None:
        """These files are deleted."""
        self._each(sql.FORGET_GARBAGE, [{"name": name} for name in names])

    def _rows(self, statement: str, **values: object) -> Sequence[Any]:
        return self._connection.execute(sa.text(statement), values).fetchall()

    def _rows_in(self, statement: str, name: str, values: Sequence[object]) -> Sequence[Any]:
        bound = sa.text(statement).bindparams(sa.bindparam(name, expanding=True))
        answer = self._connection.execute(bound, {name: list(values)})
        return answer.fetchall() if answer.returns_rows else ()

    def _number(self, statement: str) -> int:
        return int(self._connection.execute(sa.text(statement)).scalar() or 0)

    def _each(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        if values:
            self._connection.execute(sa.text(statement), values)


class CatalogDatabase:
    """The database; used by several threads.

    Args:
        url: as SQLAlchemy has it.
    """

    def __init__(self, url: str) -> None:
        is_sqlite = url.startswith("sqlite")
        waits = {"timeout": _LOCK_SECONDS} if is_sqlite else {"options": f"-c lock_timeout={_LOCK_SECONDS}s", "connect_timeout": 10}
        self._engine = sa.create_engine(url, pool_pre_ping=not is_sqlite, connect_args=waits)
        if is_sqlite:
            sa.event.listen(self._engine, "connect", _durable)
        with _translated(), self._engine.begin() as connection:
            for statement in sql.TABLES:
                connection.execute(sa.text(statement))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction that writes, one at a time among all processes. Taken back when the block raises.

        Raises:
            CommitUnknown: whether it was committed is not known.
            Unavailable: the database cannot now; nothing was done.
        """
        with _translated(), self._engine.connect() as connection:
            connection.execute(sa.text(sql.LOCK))
            yield Transaction(connection)
            try:
                connection.commit()
            except exc.DBAPIError as error:
                raise CommitUnknown(DEPENDENCY, f"the catalog did not answer a commit: {type(error).__name__}", retry_after=1.0) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A transaction that reads.

        Raises:
            Unavailable: the database cannot now.
        """
        with _translated(), self._engine.connect() as connection:
            yield Transaction(connection)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        raise Unavailable(DEPENDENCY, f"the catalog's database cannot now: {type(error).__name__}", retry_after=1.0) from error


def _pointer(name: _Name, location: str) -> dict[str, str]:
    return {"schema": name[0], "name": name[1], "location": location}


def _durable(connection: Any, _: object) -> None:
    """A commit is on disk when it returns; whoever reads does not wait for it."""
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
