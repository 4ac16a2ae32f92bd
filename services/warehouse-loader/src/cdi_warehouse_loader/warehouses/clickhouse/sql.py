"""The SQL of ClickHouse: names, types, tables and what stands for rows of one user.

Every table of rows is a ``ReplacingMergeTree`` whose sorting key is the row's identity and whose version is the load that brought it, so
of rows that were brought twice one is seen (``final``), and stays when parts are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table, key_of
from cdi_warehouse_loader.domain.load import TableLoad

LOAD: Final = "__load"
"""The column of the load that brought a row; no column of an event can have this name."""

OWN: Final = "_cdi"
_TAKEN: Final = frozenset({"_row_exists", "_block_number", "_block_offset", "_part_offset", "_part_granule_offset", "_distance"})
"""Columns that every table of ClickHouse has by itself: a property of that name has one more ``_`` in front, as no other property can."""

TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.BOOLEAN: "Bool",
    ColumnType.INTEGER: "Int32",
    ColumnType.BIGINT: "Int64",
    ColumnType.DOUBLE: "Float64",
    ColumnType.TIMESTAMP: "DateTime64(6, 'UTC')",
    ColumnType.TEXT: "String",
}

AS_ELSEWHERE: Final = "settings join_use_nulls = 1, aggregate_functions_null_for_empty = 1"
"""Of views, as of questions: what is not there is NULL, on the other side of a join and in a sum of nothing."""

_PEOPLE: Final = (naming.USERS, naming.ACCOUNTS)

_STORING: Final = """fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 1"""
"""A row is on disk when its insert returns, and so is a merged part, so the parts that it was made of need not stay."""

OWN_TABLES: Final = (
    f"create database if not exists {OWN}",
    f"""create table if not exists {OWN}.commits (
        number UInt64, mark String, kind LowCardinality(String), session UInt64, load UInt64, said String,
        at DateTime64(6, 'UTC') default now64(6)) engine = MergeTree order by number
        settings {_STORING}, non_replicated_deduplication_window = 10000""",
    f"create or replace view {OWN}.chain as select * from {OWN}.commits order by number, at limit 1 by number",
    f"""create or replace view {OWN}.progress as
        select p.1 as stream, p.2 as partition, p.3 as sequence, p.4 as source_sequence from (
            select arrayJoin(JSONExtract(said, 'positions', 'Array(Tuple(String, Int32, Int64, Int64))')) as p from {OWN}.chain)""",
    f"""create table if not exists {OWN}.warehouses (
        workspace_id String, name String, purposes Array(String), schema_name String, version Int32, frozen_sources Array(String),
        stored_at DateTime64(6, 'UTC') default now64(6))
        engine = ReplacingMergeTree(stored_at) order by (workspace_id, name) settings {_STORING}""",
    f"""create table if not exists {OWN}.tombstones (
        digest FixedString(16), erased_before DateTime64(6, 'UTC'), erased_at DateTime64(6, 'UTC'))
        engine = MergeTree order by digest settings {_STORING}""",
    f"""create table if not exists {OWN}.unrewritten (erased_at DateTime64(6, 'UTC'), schema_name String, table_name String)
        engine = MergeTree order by erased_at settings {_STORING}""",
    f"""create table if not exists {OWN}.people (
        job String, at DateTime default now(), number UInt32, workspace_id String, kind String, value String,
        before DateTime64(6, 'UTC')) engine = Memory""",
    f"""create table if not exists {OWN}.found (
        job String, at DateTime default now(), place String, number UInt32, message_id Nullable(String),
        first String, second String, third Int64, fourth Int64) engine = Memory""",
)
"""The loader's own tables. Who is being erased, and the rows that were found, are in the server's memory only."""


def quoted(name: str) -> str:
    """An identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def stored_column(name: str) -> str:
    """The name under which a table has a column."""
    return f"_{name}" if name in _TAKEN else name


def seen_column(stored: str) -> str:
    """The name of the column that a table has under this name."""
    return stored.removeprefix("_") if stored.removeprefix("_") in _TAKEN else stored


def column_of(name: str) -> str:
    """A column of a table."""
    return quoted(stored_column(name))


def text(value: str) -> str:
    """A text."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"


def place(schema: str, table: str) -> str:
    """A table or view as people see it."""
    return f"{quoted(schema)}.{quoted(table)}"


def stored(schema: str, table: str) -> str:
    """The table that holds the rows: of users and accounts, what each load said of them."""
    return place(schema, stored_name(table))


def stored_name(table: str) -> str:
    """The name of the table that holds the rows of what people see as this table."""
    return f"_{table}" if table in _PEOPLE else table


def seen_name(stored_name: str) -> str:
    """The name by which people see the table of this name."""
    bare = stored_name.removeprefix("_")
    return bare if stored_name.startswith("_") and bare in _PEOPLE else stored_name


def column_type(table: str, column: str, kind: ColumnType) -> str:
    """How a column is declared."""
    return TYPES[kind] if column in key_of(table) else f"Nullable({TYPES[kind]})"


def starting_tables(schema: str, tables: Mapping[str, Mapping[str, ColumnType]]) -> Iterable[str]:
    """What a schema holds before the first row, and columns that were added to the layout since its tables were made."""
    yield f"create database if not exists {quoted(schema)}"
    for table, columns in STARTING_TABLES.items():
        if table not in tables:
            yield create_table(schema, table, columns)
    for table, known in tables.items():
        columns = STARTING_TABLES.get(table, TRACK_TABLE_COLUMNS if is_event_table(table, known) else {})
        if missing := {name: kind for name, kind in columns.items() if name not in known}:
            yield add_columns(schema, table, missing)


def create_table(schema: str, table: str, columns: Mapping[str, ColumnType]) -> str:
    """A new table."""
    declared = "".join(f"{column_of(name)} {column_type(table, name, kind)}, " for name, kind in columns.items())
    key = [*key_of(table), LOAD] if table in _PEOPLE else key_of(table)
    declared += f"{LOAD} UInt64, index {LOAD}_range {LOAD} type minmax granularity 1"
    return f"""create table if not exists {stored(schema, table)} ({declared})
        engine = ReplacingMergeTree({LOAD}) order by ({", ".join(map(quoted, key))}) settings {_STORING}"""


def change_table(load: TableLoad, *, is_new: bool) -> Iterable[str]:
    """A new table, or new columns of one and integer columns that become double."""
    if is_new:
        yield create_table(load.schema, load.table, load.added)
    elif load.added:
        yield add_columns(load.schema, load.table, load.added)
    for column in load.widened:
        yield f"alter table {stored(load.schema, load.table)} modify column {column_of(column)} Nullable({TYPES[ColumnType.DOUBLE]})"


def add_columns(schema: str, table: str, columns: Mapping[str, ColumnType]) -> str:
    """New columns of a table."""
    added = [f"add column if not exists {column_of(name)} {column_type(table, name, kind)}" for name, kind in columns.items()]
    return f"alter table {stored(schema, table)} {', '.join(added)}"


def people_view(schema: str, table: str, columns: Iterable[str]) -> str:
    """One row per user or account: of each trait the newest value by event time that is not NULL."""
    key = [f"p.{quoted(name)}" for name in key_of(table)]
    newest = f"(ifNull(p.`timestamp`, toDateTime64(0, 6, 'UTC')), p.{LOAD})"
    own = [f"p.{column_of(name)}" for name in columns]
    shown = [f"{name if name in key else f'argMax({name}, {newest})'} as {name.removeprefix('p.')}" for name in own]
    view = f"create or replace view {place(schema, table)} as select {', '.join(shown)}"
    return f"{view} from {stored(schema, table)} as p group by {', '.join(key)} {AS_ELSEWHERE}"


def is_people(table: str) -> bool:
    """Whether rows are put together when they are read."""
    return table in _PEOPLE


def delete_before(schema: str, table: str, load: int) -> str:
    """A table without the rows of earlier loads."""
    return f"alter table {stored(schema, table)} delete where {LOAD} < {load}"
