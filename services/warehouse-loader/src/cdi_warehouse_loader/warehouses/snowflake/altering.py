"""Altering tables in Snowflake, where each such statement commits by itself.

So whoever alters holds the catalog's lock with a session of its own, and nobody loads or erases meanwhile. The lock can be lost: Snowflake
takes a transaction back that others wait for once it has not moved for five minutes. So it is looked at before what others could suffer by,
which is a column that goes. Whoever dies in the middle leaves tables and columns more, which the next one finds; a column in the middle of
being widened is widened to the end before anything is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from uuid import uuid4

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.warehouses.changes import changes_of
from cdi_warehouse_loader.warehouses.snowflake import identity, sql
from cdi_warehouse_loader.warehouses.snowflake.session import DEPENDENCY, Session
from cdi_warehouse_loader.warehouses.snowflake.state import State


class Overtaken(Unavailable):
    """Another process has been there: what was planned does not hold any more."""

    def __init__(self, what: str) -> None:
        super().__init__(DEPENDENCY, f"another process has {what}", retry_after=0.1)


def lacking(schema: str, state: State) -> Iterator[str]:
    """Statements that make what a schema has not got; none when it is complete. Twins come before the columns that need them."""
    texts = identity.views(schema)
    tables = state.catalog.get(schema, {})
    if schema not in state.schemas:
        yield f"create schema if not exists {sql.quoted(schema)}"
    for table, columns in STARTING_TABLES.items():
        if table not in tables:
            yield sql.create_table(schema, table, columns)
    for table, has in tables.items():
        layout = STARTING_TABLES.get(table, TRACK_TABLE_COLUMNS if is_event_table(table, has) else {})
        if lacks := {name: kind for name, kind in layout.items() if name not in has}:
            if table in sql.PEOPLE:
                yield sql.make_twin(schema, table, {**has, **lacks})
            yield sql.add_columns(schema, table, lacks)
    if state.schemas.get(schema) != identity.digest(texts):
        for table in sql.PEOPLE:
            yield sql.make_twin(schema, table, {**STARTING_TABLES[table], **tables.get(table, {})})
        yield from (f"create or replace view {sql.place(schema, name)} as {text}" for name, text in texts.items())


class Altering:
    """Alters tables; inside ``holding`` only.

    Args:
        guard: the session that holds the lock.
        session: the one that alters.
    """

    def __init__(self, guard: Session, session: Session) -> None:
        self._guard = guard
        self._session = session
        self._holder = ""

    @contextlib.contextmanager
    def holding(self) -> Iterator[int]:
        """Holds the catalog's lock for the time of the block, after which the version is a new one; gives the one before."""
        with self._guard.transaction():
            self._holder = uuid4().hex
            self._guard.run(sql.hold(self._holder))
            ((version,),) = self._guard.rows(sql.VERSION)
            yield version
            self._check()
            self._guard.run(sql.ALTERED)

    def finish(self, state: State) -> None:
        """Widens to the end what processes have died over."""
        for (schema, table, column), has_old in state.unfinished.items():
            self._widen(schema, table, column, has_old=has_old)

    def complete(self, schema: str, state: State) -> None:
        """Makes what a schema has not got."""
        for statement in lacking(schema, state):
            self._session.run(statement)
        with self._session.transaction():
            self._session.run(f"delete from {sql.SCHEMAS} where schema_name = {sql.literal(schema)}")
            self._session.run(sql.values(sql.SCHEMAS, [(schema, identity.digest(identity.views(schema)))]))

    def alter(self, loads: Sequence[TableLoad], state: State) -> None:
        """Makes what loads need. The history says so before it is done: a process that dies in between is followed by one that does it."""
        self._note([(*place, change.value, kind) for *place, change, kind in changes_of(loads, state.catalog)])
        for load in loads:
            known = state.catalog.get(load.schema, {}).get(load.table)
            if load.table in sql.PEOPLE:
                widened = dict.fromkeys(load.widened, ColumnType.DOUBLE)
                self._session.run(sql.make_twin(load.schema, load.table, {**(known or {}), **load.added, **widened}))
            if known is None:
                self._session.run(sql.create_table(load.schema, load.table, load.added))
            elif load.added:
                self._session.run(sql.add_columns(load.schema, load.table, load.added))
            for column in load.widened:
                self._widen(load.schema, load.table, column, has_old=True)

    def _note(self, changes: Iterable[tuple[str, ...]]) -> None:
        rows = ", ".join(f"({number}, {', '.join(map(sql.literal, change))})" for number, change in enumerate(changes))
        if rows:
            columns = ", ".join(f"column{number}" for number in range(1, 7))
            with self._session.transaction():
                self._session.run(f"insert into {sql.CHANGES} select current_timestamp(), {columns} from values {rows}")

    def _widen(self, schema: str, table: str, column: str, *, has_old: bool) -> None:
        """An integer column becomes double: Snowflake changes no type, so another column takes its place."""
        place, old, new = sql.place(schema, table), sql.quoted(column), sql.quoted(column + sql.WIDENING)
        if has_old:
            self._session.run(f"alter table {place} add column if not exists {new} {sql.TYPES[ColumnType.DOUBLE]}")
            with self._session.transaction():
                self._session.run(f"update {place} set {new} = {old}")
            self._check()
            self._session.run(f"alter table {place} drop column {old}")
        self._session.run(f"alter table {place} rename column {new} to {old}")

    def _check(self) -> None:
        if self._guard.rows(sql.HOLDER) != [(self._holder,)]:
            raise Overtaken("taken the lock of the tables")
