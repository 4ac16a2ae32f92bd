"""The tables of a ClickHouse server: what there is, what a load changes of them, and rows into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog, TableLoad
from cdi_warehouse_loader.warehouses.changes import changes_of
from cdi_warehouse_loader.warehouses.clickhouse import identity, sql
from cdi_warehouse_loader.warehouses.clickhouse.chain import Change, another_was_there
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection, ValuesRefused

_COLUMNS: Final = f"""select c.database, c.table, c.name, c.type from system.columns c
    join system.tables t on t.database = c.database and t.name = c.table
    where t.engine like '%ReplacingMergeTree' and c.name <> '{sql.LOAD}'
    and c.database in (select database from system.columns where table = '{naming.ID_GRAPH_UPDATES}' and name = '{sql.LOAD}')
    order by c.database, c.table, c.position"""
_KINDS: Final = {declared: kind for kind, declared in sql.TYPES.items()}


class Tables:
    """The tables as this process last saw them.

    Args:
        connection: the loader's.

    Attributes:
        catalog: of all schemas that are the loader's.
        is_stale: another process may have changed them since.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.catalog: Catalog = {}
        self.is_stale = True
        self.look_again()

    def look_again(self) -> None:
        """Reads the catalog; other databases of the server are none of it."""
        found: dict[str, dict[str, dict[str, ColumnType]]] = {}
        for schema, table, column, declared in self._connection.rows(_COLUMNS):
            bare = declared.removeprefix("Nullable(").removesuffix(")") if declared.startswith("Nullable(") else declared
            columns = found.setdefault(schema, {}).setdefault(sql.seen_name(table), {})
            columns[sql.seen_column(column)] = _KINDS.get(bare, ColumnType.TEXT)
        self.catalog = found
        self.is_stale = False

    def make(self, schema: str) -> None:
        """Makes a schema with its starting tables and views, or what it lacks of them."""
        for statement in sql.starting_tables(schema, self.catalog.get(schema, {})):
            self._connection.run(statement)
        self._show(schema, (naming.USERS, naming.ACCOUNTS))
        for statement in identity.views(schema):
            self._connection.run(statement)

    def checked(self, load: TableLoad) -> TableLoad:
        """A table's rows, of which every column is known or new."""
        known = {**self.catalog.get(load.schema, {}).get(load.table, {}), **load.added}
        unknown = [] if load.rows is None else [name for name in load.rows.schema.names if name not in known]
        if unknown:
            raise ValueError(f"{load.schema}.{load.table} has no column {', '.join(unknown)}")
        return load

    def attempt(self, load: TableLoad) -> None:
        """Has the server read the rows as the table would hold them."""
        if load.rows is None or not load.rows.num_rows:
            return
        known = {**self.catalog.get(load.schema, {}).get(load.table, {}), **load.added, **dict.fromkeys(load.widened, ColumnType.DOUBLE)}
        columns = [f"{sql.column_of(name)} {sql.column_type(load.table, name, known[name])}" for name in load.rows.schema.names]
        self._connection.insert(f"function null({sql.text(', '.join(columns))})", _stored(load.rows))

    def alter(self, tables: Sequence[TableLoad], announce: Callable[[Sequence[Change]], None]) -> None:
        """Makes what the loads need.

        Args:
            tables: the loads.
            announce: says so in the chain before, so that of two processes one plans anew; who was overtaken sees it after.

        Raises:
            Unavailable: another process was there, or the server refuses.
        """
        changed = [load for load in tables if load.added or load.widened or load.table not in self.catalog.get(load.schema, {})]
        if not changed:
            return
        announce(list(changes_of(changed, self.catalog)))
        for load in changed:
            for statement in sql.change_table(load, is_new=load.table not in self.catalog.get(load.schema, {})):
                self._change(statement)
        self.look_again()
        for load in changed:
            columns = self.catalog[load.schema][load.table]
            expected = {**load.added, **dict.fromkeys(load.widened, ColumnType.DOUBLE)}
            if any(columns.get(name) is not kind for name, kind in expected.items()):
                raise another_was_there()
            if sql.is_people(load.table):
                self._show(load.schema, (load.table,))

    def insert(self, load: TableLoad, number: int) -> None:
        """Inserts the rows with the number of their load."""
        if load.rows is None or not load.rows.num_rows:
            return
        numbers = pa.array([number] * load.rows.num_rows, pa.uint64())
        try:
            self._connection.insert(sql.stored(load.schema, load.table), _stored(load.rows).append_column(sql.LOAD, numbers))
        except ValuesRefused:
            # Bisecting finds the event only if a try of it fails too; if not, nothing is wrong with the values.
            self.attempt(load)
            raise Unavailable(DEPENDENCY, "ClickHouse refuses rows that it takes when it is asked again") from None

    def _change(self, statement: str) -> None:
        """Changes a table. What is refused here no try of the load would show, and bisecting would take its events for loaded."""
        try:
            self._connection.run(statement)
        except ValuesRefused as error:
            raise Unavailable(DEPENDENCY, f"ClickHouse refuses to change a table: {error}") from error

    def _show(self, schema: str, tables: Sequence[str]) -> None:
        """Makes the views of users and accounts, until they have all columns: another process may add one meanwhile."""
        self.look_again()
        shown = None
        while shown != (shown := {table: tuple(self.catalog[schema][table]) for table in tables}):
            for table, columns in shown.items():
                self._connection.run(sql.people_view(schema, table, columns))
            self.look_again()


def _stored(rows: Any) -> Any:
    """Rows with their columns' names in the table."""
    return rows.rename_columns([sql.stored_column(name) for name in rows.schema.names])
