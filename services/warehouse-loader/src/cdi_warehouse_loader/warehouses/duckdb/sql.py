"""The SQL of the embedded warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table

OWN_TABLES: Final = (
    "create schema if not exists _cdi",
    """create table if not exists _cdi.progress (
        stream varchar not null, partition integer not null, sequence bigint not null, source_sequence bigint not null)""",
    """create table if not exists _cdi.outcomes (
        sink varchar not null, outcome integer not null, reason varchar not null, events bigint not null)""",
    """create table if not exists _cdi.warehouses (
        workspace_id varchar not null, name varchar not null, purposes varchar[] not null, schema_name varchar not null,
        version integer not null, primary key (workspace_id, name))""",
    "alter table _cdi.warehouses add column if not exists frozen_sources varchar[] default []",
    """create table if not exists _cdi.loads (
        stream varchar not null, started_at timestamptz not null, milliseconds double not null, events bigint not null,
        row_count bigint not null, tables integer not null)""",
    "alter table _cdi.loads add column if not exists byte_count bigint default 0",
    "create table if not exists _cdi.schema_changes (changed_at timestamptz not null, changes varchar not null)",
    f"delete from _cdi.loads where started_at < now() - interval {14} day",
)
"""The loader's own tables; loads are remembered for two weeks.

Progress and outcomes are appended to and summed up when read: a load that looked up the rows of a key would take three times as long to
write them. Now and then the rows are folded into one per key.
"""

HAS_KEYED_PROGRESS: Final = """select count(*) = 2 from duckdb_tables()
    where database_name = current_database() and schema_name = '_cdi' and table_name in ('positions', 'outcome_counts')"""
TAKE_KEYED_PROGRESS: Final = (
    "insert into _cdi.progress select stream, partition, sequence, source_sequence from _cdi.positions",
    "insert into _cdi.outcomes select sink, outcome, reason, events from _cdi.outcome_counts",
    "drop table _cdi.positions",
    "drop table _cdi.outcome_counts",
)
"""Files of the first loaders have one row per key in tables of other names: without their positions all would be loaded again."""

READ_CATALOG: Final = """select schema_name, table_name, column_name, data_type from duckdb_columns()
    where database_name = current_database() and not internal and schema_name <> '_cdi'"""
READ_POSITIONS: Final = """select stream, partition, max(sequence), arg_max(source_sequence, sequence)
    from _cdi.progress group by stream, partition"""
READ_COUNTS: Final = "select sink, outcome, reason, sum(events)::bigint from _cdi.outcomes group by sink, outcome, reason order by all"
READ_DOCUMENTS: Final = "select workspace_id, name, purposes, schema_name, version, frozen_sources from _cdi.warehouses order by 1, 2"
WRITE_POSITIONS: Final = """insert into _cdi.progress
    select unnest(?::varchar[]), unnest(?::integer[]), unnest(?::bigint[]), unnest(?::bigint[])"""
WRITE_COUNTS: Final = """insert into _cdi.outcomes
    select unnest(?::varchar[]), unnest(?::integer[]), unnest(?::varchar[]), unnest(?::bigint[])"""
FORGET_PROGRESS: Final = ("delete from _cdi.progress", "delete from _cdi.outcomes")
WRITE_DOCUMENT: Final = "insert or replace into _cdi.warehouses values (?, ?, ?, ?, ?, ?)"
WRITE_LOG: Final = "insert into _cdi.loads values (?, now(), ?, ?, ?, ?, ?)"
READ_LOG: Final = """select stream, epoch_us(started_at), milliseconds, events, row_count, byte_count, tables
    from _cdi.loads order by started_at desc limit ?"""
WRITE_CHANGES: Final = "insert into _cdi.schema_changes values (now(), ?)"
"""All changes of a load as one JSON text: a row for each of thousands of new columns would take the memory that the load needs."""

READ_CHANGES: Final = "select epoch_us(changed_at), changes from _cdi.schema_changes order by changed_at"


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text."""
    return "'" + text.replace("'", "''") + "'"


def place(schema: str, table: str) -> str:
    """A table."""
    return f"{quoted(schema)}.{quoted(table)}"


def starting_tables(schema: str, tables: Mapping[str, Mapping[str, ColumnType]]) -> Iterable[str]:
    """What a schema holds before the first row, and columns that were added to the layout since its tables were made.

    Args:
        schema: the schema.
        tables: what it has already.
    """
    yield f"create schema if not exists {quoted(schema)}"
    for table, columns in STARTING_TABLES.items():
        if table not in tables:
            yield create_table(schema, table, columns)
    for table, known in tables.items():
        columns = STARTING_TABLES.get(table, TRACK_TABLE_COLUMNS if is_event_table(table, known) else {})
        yield from (add_column(schema, table, name, kind) for name, kind in columns.items() if name not in known)


def create_table(schema: str, table: str, columns: Mapping[str, ColumnType]) -> str:
    """A new table."""
    declared = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
    return f"create table if not exists {place(schema, table)} ({declared})"


def add_column(schema: str, table: str, column: str, kind: ColumnType) -> str:
    """A new column of a table."""
    return f"alter table {place(schema, table)} add column {quoted(column)} {kind}"


def widen_column(schema: str, table: str, column: str) -> str:
    """An integer column becomes double."""
    return f"alter table {place(schema, table)} alter column {quoted(column)} set data type {ColumnType.DOUBLE}"


def empty(schema: str, table: str) -> str:
    """A table without its rows."""
    return f"delete from {place(schema, table)}"


def append(schema: str, table: str, source: str) -> str:
    """Rows of a registered batch, by column name."""
    return f"insert into {place(schema, table)} by name select * from {source}"


def merge(schema: str, table: str, source: str, keys: Sequence[str], columns: Sequence[str]) -> str:
    """Rows by key: newer ones bring their values, older ones only fill what is empty."""
    others = [quoted(column) for column in columns if column not in keys]
    match = " and ".join(f"old.{quoted(key)} = new.{quoted(key)}" for key in keys)
    newer = ", ".join(f"{name} = coalesce(new.{name}, old.{name})" for name in others)
    older = ", ".join(f"{name} = coalesce(old.{name}, new.{name})" for name in others)
    return f"""merge into {place(schema, table)} old using {source} new on {match}
        when matched and new."timestamp" >= old."timestamp" then update set {newer}
        when matched then update set {older}
        when not matched then insert by name"""
