"""The SQL of BigQuery: names, types, the loader's own tables, and the statements that change tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table
from cdi_warehouse_loader.domain.load import TableLoad

Columns = Mapping[str, ColumnType]

OWN: Final = "_cdi"
HOURS: Final = 48
"""Hours for which a dataset keeps what was deleted, the fewest that BigQuery allows; seven days more it keeps for itself."""

TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.BOOLEAN: "BOOL",
    ColumnType.INTEGER: "INT64",
    ColumnType.BIGINT: "INT64",
    ColumnType.DOUBLE: "FLOAT64",
    ColumnType.TIMESTAMP: "TIMESTAMP",
    ColumnType.TEXT: "STRING",
}
KINDS: Final[Mapping[str, ColumnType]] = {
    "BOOL": ColumnType.BOOLEAN,
    "INT64": ColumnType.BIGINT,
    "FLOAT64": ColumnType.DOUBLE,
    "TIMESTAMP": ColumnType.TIMESTAMP,
    "STRING": ColumnType.TEXT,
}

_TAKEN: Final = (
    "_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_sequence_number", "_change_type",
    "_change_timestamp",
)  # fmt: skip
"""What no column's name may begin with (BigQuery's documentation of ``CREATE TABLE``, "Column name")."""


MOST_TABLES: Final = 90
"""Tables of a schema that a transaction changes: BigQuery allows 100, and the loader's own are among them."""

MOST_TEXT: Final = 900_000
"""Characters of a script; BigQuery takes one MiB."""

OVERTAKEN: Final = "cdi: another process was there"

OWN_TABLES: Final = (
    f"CREATE SCHEMA IF NOT EXISTS `{OWN}` OPTIONS (max_time_travel_hours = {HOURS})",
    f"CREATE SCHEMA IF NOT EXISTS `{OWN}_staging` OPTIONS (max_time_travel_hours = {HOURS}, default_table_expiration_days = 1)",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`state` (`version` INT64, `loads` INT64)",
    f"""INSERT INTO `{OWN}`.`state` (`version`, `loads`)
        SELECT 1, 0 FROM (SELECT 1) WHERE NOT EXISTS (SELECT 1 FROM `{OWN}`.`state`)""",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`schemas` (`schema_name` STRING, `views` STRING, `noted_at` TIMESTAMP)",
    f"""CREATE TABLE IF NOT EXISTS `{OWN}`.`progress` (
        `stream` STRING, `partition` INT64, `sequence` INT64, `source_sequence` INT64)""",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`outcomes` (`sink` STRING, `outcome` INT64, `reason` STRING, `events` INT64)",
    f"""CREATE TABLE IF NOT EXISTS `{OWN}`.`warehouses` (
        `workspace_id` STRING, `name` STRING, `schema_name` STRING, `version` INT64, `purposes` STRING, `frozen_sources` STRING)""",
    f"""CREATE TABLE IF NOT EXISTS `{OWN}`.`loads` (
        `stream` STRING, `started_at` TIMESTAMP, `milliseconds` FLOAT64, `events` INT64, `row_count` INT64, `byte_count` INT64,
        `tables` INT64)""",
    f"""CREATE TABLE IF NOT EXISTS `{OWN}`.`schema_changes` (
        `changed_at` TIMESTAMP, `number` INT64, `schema_name` STRING, `table_name` STRING, `column_name` STRING, `change` STRING,
        `type` STRING)""",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`clears` (`schema_name` STRING, `table_name` STRING)",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`tombstones` (`digest` STRING, `erased_before` TIMESTAMP, `erased_at` TIMESTAMP)",
    f"CREATE TABLE IF NOT EXISTS `{OWN}`.`unrewritten` (`erased_at` TIMESTAMP, `noted_at` TIMESTAMP)",
)
"""The loader's own tables. ``state`` has one row, which every load and every erasure updates: of two transactions that do so at once
BigQuery takes one back. Its version rises with every change of any table and every erasure. ``clears`` has the tables that a rebuild has
still to empty, of which a transaction takes only so many."""

FORGET_LOG: Final = f"DELETE FROM `{OWN}`.`loads` WHERE `started_at` < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 14 DAY)"
"""Loads are remembered for two weeks."""


def quoted(name: str) -> str:
    """An identifier; names of the loader hold no backtick."""
    return f"`{name}`"


def stored_column(name: str) -> str:
    """The name under which a table has a column: ``x`` before and ``_`` after what may not begin one; no other name ends in ``_``."""
    return f"x{name}_" if name.startswith(_TAKEN) else name


def seen_column(stored: str) -> str:
    """The name of the column that a table has under this name."""
    return stored[1:-1] if stored.endswith("_") and stored[1:].startswith(_TAKEN) else stored


def column_of(name: str) -> str:
    """A column of a table."""
    return quoted(stored_column(name))


def text(value: str) -> str:
    """A text."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def place(schema: str, table: str) -> str:
    """A table or view."""
    return f"{quoted(schema)}.{quoted(table)}"


def create_schema(schema: str) -> str:
    """A dataset."""
    return f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)} OPTIONS (max_time_travel_hours = {HOURS})"


def create_table(schema: str, table: str, columns: Columns) -> str:
    """A new table. Those of events are partitioned by the day on which they were received, and clustered by who they are of."""
    declared = ", ".join(f"{column_of(name)} {TYPES[kind]}" for name, kind in columns.items())
    made = f"CREATE TABLE IF NOT EXISTS {place(schema, table)} ({declared})"
    if is_event_table(table, columns):
        return f"{made} PARTITION BY TIMESTAMP_TRUNC(`received_at`, DAY) CLUSTER BY `workspace_id`, `user_id`"
    return f"{made} CLUSTER BY `workspace_id`, `id`" if table in (naming.USERS, naming.ACCOUNTS) else made


def add_columns(schema: str, table: str, columns: Columns) -> str:
    """New columns of a table, in one statement: BigQuery takes five changes of a table in ten seconds."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column_of(name)} {TYPES[kind]}" for name, kind in columns.items())
    return f"ALTER TABLE {place(schema, table)} {added}"


def starting_tables(schema: str, tables: Mapping[str, Columns]) -> Iterator[str]:
    """What a schema holds before the first row, and columns that were added to the layout since its tables were made."""
    for table, columns in STARTING_TABLES.items():
        if table not in tables:
            yield create_table(schema, table, columns)
    for table, known in tables.items():
        columns = STARTING_TABLES.get(table, TRACK_TABLE_COLUMNS if is_event_table(table, known) else {})
        if missing := {name: kind for name, kind in columns.items() if name not in known}:
            yield add_columns(schema, table, missing)


def change_table(load: TableLoad, *, is_new: bool) -> Iterator[str]:
    """A new table, or new columns of one and integer columns that become double."""
    if is_new:
        yield create_table(load.schema, load.table, load.added)
    elif load.added:
        yield add_columns(load.schema, load.table, load.added)
    for column in load.widened:
        yield f"ALTER TABLE {place(load.schema, load.table)} ALTER COLUMN {column_of(column)} SET DATA TYPE {TYPES[ColumnType.DOUBLE]}"


def script(statements: Iterable[str]) -> str:
    """Statements one after the other."""
    return ";\n".join(statements) + ";"


def transaction(statements: Iterable[str]) -> str:
    """Statements that are done all or not at all: a script that ends in an error takes its transaction back."""
    return script(["BEGIN TRANSACTION", *statements, "COMMIT TRANSACTION"])


def check(condition: str) -> str:
    """Ends the script unless something holds."""
    return f"SELECT IF({condition}, 'as planned', ERROR({text(OVERTAKEN)}))"


def take_turn(*, alters: bool = False) -> str:
    """The first statement of a transaction: whoever else does it at the same time is taken back, or takes this one back."""
    return f"UPDATE `{OWN}`.`state` SET `loads` = `loads` + 1, `version` = `version` + {int(alters)} WHERE TRUE"


def version_is(version: int) -> str:
    """A condition: nobody else has changed tables or erased people."""
    return f"(SELECT MAX(`version`) FROM `{OWN}`.`state`) = {version}"


def values(columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> str:
    """A query of literal rows.

    Args:
        columns: types by name.
        rows: texts and numbers.
    """
    fields = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
    shown = ", ".join(f"({', '.join(text(value) if isinstance(value, str) else str(value) for value in row)})" for row in rows)
    return f"SELECT * FROM UNNEST(ARRAY<STRUCT<{fields}>>[{shown}])"


def clear(cleared: tuple[str, str]) -> str:
    """A table without rows, for a transaction."""
    return f"DELETE FROM {place(*cleared)} WHERE TRUE"


def chunks(tables: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    """As many tables at a time as a transaction may change."""
    for start in range(0, len(tables), MOST_TABLES):
        yield tables[start : start + MOST_TABLES]


def instant(us: int) -> str:
    """A time."""
    return f"TIMESTAMP_MICROS({us})"
