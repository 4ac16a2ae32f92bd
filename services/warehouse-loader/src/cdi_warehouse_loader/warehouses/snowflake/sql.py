"""The SQL of a warehouse in Snowflake: names, types, its own tables, and the tables of a schema.

Names. What CDI calls ``order_completed`` is ``ORDER_COMPLETED`` here, as with Segment and RudderStack, so that SQL without quotes finds it.
Only the letters a to z are turned, by a table, since turning others cannot be undone (``ß``). All names are quoted.

Tables are transient and remember no past (``data_retention_time_in_days = 0``), so that a row that is deleted is gone.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType

Columns = Mapping[str, ColumnType]

TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.BOOLEAN: "boolean",
    ColumnType.INTEGER: "number(10, 0)",
    ColumnType.BIGINT: "number(19, 0)",
    ColumnType.DOUBLE: "float",
    ColumnType.TIMESTAMP: "timestamp_tz(6)",
    ColumnType.TEXT: "varchar",
}
"""How Snowflake spells the types."""

PEOPLE: Final = (naming.USERS, naming.ACCOUNTS)
WIDENING: Final = "__double"
"""Ends the name of a column that will take the place of another one; no column of an event has two of these signs in its middle."""

_UPPER: Final = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def upper(name: str) -> str:
    """A name of CDI's as Snowflake has it."""
    return name.translate(_UPPER)


def lower(name: str) -> str:
    """A name in Snowflake as CDI has it."""
    return name.translate(_LOWER)


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + upper(name).replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def place(schema: str, table: str) -> str:
    """A table."""
    return f"{quoted(schema)}.{quoted(table)}"


OWN: Final = "_cdi"
STAGE: Final = place(OWN, "loading")
CATALOG: Final = place(OWN, "catalog")
PROGRESS: Final = place(OWN, "progress")
OUTCOMES: Final = place(OWN, "outcomes")
LOADS: Final = place(OWN, "loads")
CHANGES: Final = place(OWN, "schema_changes")
WAREHOUSES: Final = place(OWN, "warehouses")
SCHEMAS: Final = place(OWN, "schemas")
TOMBSTONES: Final = place(OWN, "tombstones")
UNREWRITTEN: Final = place(OWN, "unrewritten")
IDS: Final = place(OWN, "people")
FOUND: Final = place(OWN, "found")

NO_PAST: Final = "data_retention_time_in_days = 0"
TRIED: Final = "TRY_"
"""Begins the name of a table that a load is tried with."""

AMONG: Final = "{column} in (select f.value::varchar from table(flatten(input => parse_json(?))) f)"
"""A column that has one of the texts of a JSON list, which does not stand in the statement."""


def _own_table(name: str, columns: str) -> str:
    return f"create transient table if not exists {name} ({columns}) {NO_PAST}"


def _declared(columns: Columns) -> str:
    return ", ".join(f"{quoted(name)} {TYPES[kind]}" for name, kind in columns.items())


_COLUMNS: Final[Mapping[str, str]] = {
    PROGRESS: "stream varchar, partition number(10, 0), sequence number(19, 0), source_sequence number(19, 0)",
    OUTCOMES: "sink varchar, outcome number(10, 0), reason varchar, events number(19, 0)",
    LOADS: """stream varchar, started_at timestamp_tz(6), milliseconds float, events number(19, 0), row_count number(19, 0),
        byte_count number(19, 0), tables number(10, 0)""",
    CHANGES: """changed_at timestamp_tz(6), place number(10, 0), schema_name varchar, table_name varchar, column_name varchar,
        change varchar, type varchar""",
    WAREHOUSES: """workspace_id varchar, name varchar, purposes varchar, schema_name varchar, version number(10, 0),
        frozen_sources varchar""",
    SCHEMAS: "schema_name varchar, views varchar",
    TOMBSTONES: "digest varchar, erased_before_us number(19, 0), erased_at_us number(19, 0)",
    UNREWRITTEN: "erased_at_us number(19, 0)",
    IDS: "number number(10, 0), workspace_id varchar, kind varchar, value varchar, folded varchar, before timestamp_tz(6)",
    FOUND: "place varchar, number number(10, 0), first varchar, second varchar, message_id varchar",
}
OWN_TABLES: Final[Mapping[str, str]] = {
    CATALOG: f"create transient table if not exists {CATALOG} {NO_PAST} as select 1::number(19, 0) as version, ''::varchar as holder",
    **{name: _own_table(name, columns) for name, columns in _COLUMNS.items()},
}
"""The loader's own tables, by place. ``catalog`` has one row: its version rises with every change of any table and every erasure, and
whoever has written its holder holds all others up until the commit; see ``loading``. ``people`` and ``found`` have rows inside of
transactions only."""

VERSION: Final = f"select version from {CATALOG}"
ALTERED: Final = f"update {CATALOG} set version = version + 1"
HOLDER: Final = f"select holder from {CATALOG}"
POSITIONS: Final = f"""select stream, partition, max(sequence), max_by(source_sequence, sequence) from {PROGRESS}
    group by stream, partition"""
COUNTS: Final = f"select sink, outcome, reason, sum(events)::number(19, 0) from {OUTCOMES} group by sink, outcome, reason"
FORGET_LOG: Final = f"delete from {LOADS} where started_at < dateadd(day, -14, current_timestamp())"
"""Loads are remembered for two weeks."""


def hold(holder: str) -> str:
    """Takes the catalog's lock until the end of the transaction."""
    return f"update {CATALOG} set holder = {literal(holder)}"


def values(table: str, rows: Iterable[Sequence[str | int | float]]) -> str:
    """Inserts rows of the loader's own, which say nothing of people."""
    shown = ", ".join("(" + ", ".join(literal(each) if isinstance(each, str) else repr(each) for each in row) + ")" for row in rows)
    return f"insert into {table} values {shown}"


def create_table(schema: str, table: str, columns: Columns) -> str:
    """A new table."""
    return create_at(place(schema, table), columns)


def create_at(place: str, columns: Columns) -> str:
    """A new table at a place that is spelled already."""
    return _own_table(place, _declared(columns))


def add_columns(schema: str, table: str, columns: Columns) -> str:
    """New columns of a table."""
    added = ", ".join(f"if not exists {quoted(name)} {TYPES[kind]}" for name, kind in columns.items())
    return f"alter table {place(schema, table)} add column {added}"


def twin(schema: str, table: str) -> str:
    """The place of rows of people on their way into their table: empty but inside a transaction."""
    return place(OWN, f"{schema}__{table}")


def make_twin(schema: str, table: str, columns: Columns) -> str:
    """The twin of a table, with its columns."""
    return f"create or replace transient table {twin(schema, table)} ({_declared(columns)}) {NO_PAST}"


def copy(table: str, file: str) -> str:
    """The rows of a Parquet file of the stage, by names of columns."""
    return f"""copy into {table} from @{STAGE}/{file} file_format = (type = parquet use_logical_type = true binary_as_text = false
        use_vectorized_scanner = true) match_by_column_name = case_sensitive purge = true"""


def merge(schema: str, table: str, keys: Sequence[str], columns: Sequence[str]) -> Sequence[str]:
    """Rows of the twin by key: newer ones bring their values, older ones only fill what is empty."""
    old, new = quoted(table), '"NEW"'
    same = " and ".join(f"{old}.{name} = {new}.{name}" for name in map(quoted, keys))
    newer = f'{new}."TIMESTAMP" >= {old}."TIMESTAMP"'
    changes = ", ".join(
        f"{name} = case when {newer} then coalesce({new}.{name}, {old}.{name}) else coalesce({old}.{name}, {new}.{name}) end"
        for name in map(quoted, columns)
        if name not in set(map(quoted, keys))
    )
    listed = ", ".join(map(quoted, columns))
    given = ", ".join(f"{new}.{quoted(name)}" for name in columns)
    return (
        f"update {place(schema, table)} set {changes} from {twin(schema, table)} {new} where {same}",
        f"""insert into {place(schema, table)} ({listed}) select {given} from {twin(schema, table)} {new}
            where not exists (select 1 from {place(schema, table)} where {same})""",
        f"delete from {twin(schema, table)}",
    )
