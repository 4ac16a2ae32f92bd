"""What a warehouse in Snowflake says of itself: tables, positions, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import Change, LoadEntry, SchemaChange
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.session import Session

_COLUMNS: Final = """select c.table_schema, c.table_name, c.column_name, c.data_type, c.numeric_precision
    from information_schema.columns c
    join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name
    where t.table_type = 'BASE TABLE' order by c.table_schema, c.table_name, c.ordinal_position"""
_OWN: Final = f"select table_name from information_schema.tables where table_schema = '{sql.upper(sql.OWN)}'"
_NEWEST_ERASURE: Final = f"select coalesce(max(erased_at_us), 0) from {sql.TOMBSTONES}"
_LOADS: Final = f"""select stream, date_part(epoch_microsecond, started_at), milliseconds, events, row_count, byte_count, tables
    from {sql.LOADS} order by started_at desc limit {{limit}}"""
_CHANGES: Final = f"""select date_part(epoch_microsecond, changed_at), schema_name, table_name, column_name, change, type
    from {sql.CHANGES} where schema_name = ? order by changed_at, place"""
_KINDS: Final = {
    "BOOLEAN": ColumnType.BOOLEAN,
    "NUMBER": ColumnType.BIGINT,
    "FLOAT": ColumnType.DOUBLE,
    "TIMESTAMP_TZ": ColumnType.TIMESTAMP,
}
_INTEGER_DIGITS: Final = 10


@dataclass(frozen=True, slots=True)
class State:
    """A warehouse as this process last saw it.

    Attributes:
        version: rises with every change of any table and every erasure. Read first, so the rest is at least as new.
        newest_erasure_us: see ``ports.Warehouse``.
        schemas: the loader's, with the digests of their views' text. Others in the database are none of its business.
        catalog: their tables. A column that a process died over while it widened it is there as it will be.
        unfinished: such columns, by schema and table, and whether the old one is still there.
        positions: see ``ports.Warehouse``.
    """

    version: int
    newest_erasure_us: int
    schemas: Mapping[str, str]
    catalog: Catalog
    unfinished: Mapping[tuple[str, str, str], bool]
    positions: Mapping[StreamPartition, Position]


def read(session: Session) -> State:
    """The state."""
    ((version,),), ((newest_us,),) = session.rows(sql.VERSION), session.rows(_NEWEST_ERASURE)
    schemas = dict(session.rows(f"select schema_name, views from {sql.SCHEMAS}"))
    catalog: dict[str, dict[str, dict[str, ColumnType]]] = {name: {} for name in schemas}
    for schema, table, column, kind, digits in session.rows(_COLUMNS):
        tables = catalog.get(sql.lower(schema))
        if tables is not None:
            tables.setdefault(sql.lower(table), {})[sql.lower(column)] = _type(kind, digits)
    unfinished = {
        (schema, table, column.removesuffix(sql.WIDENING)): column.removesuffix(sql.WIDENING) in columns
        for schema, tables in catalog.items()
        for table, columns in tables.items()
        for column in columns
        if column.endswith(sql.WIDENING)
    }
    for schema, table, column in unfinished:
        del catalog[schema][table][column + sql.WIDENING]
        catalog[schema][table][column] = ColumnType.DOUBLE
    return State(version, newest_us, schemas, catalog, unfinished, positions(session))


def own_tables(session: Session) -> set[str]:
    """Places of the loader's own tables that are there."""
    return {sql.place(sql.OWN, name) for (name,) in session.rows(_OWN)}


def positions(session: Session) -> dict[StreamPartition, Position]:
    """How far each partition is loaded."""
    return {StreamPartition(stream, partition): Position(*at) for stream, partition, *at in session.rows(sql.POSITIONS)}


def counts(session: Session) -> dict[CountKey, int]:
    """What became of the events, by key."""
    return {CountKey(*key): events for *key, events in session.rows(sql.COUNTS)}


def loads(session: Session, limit: int) -> list[LoadEntry]:
    """The newest entries of the log."""
    return [LoadEntry(*row) for row in session.rows(_LOADS.format(limit=int(limit)))]


def schema_changes(session: Session, schema: str) -> list[SchemaChange]:
    """The history of a schema; a change that a process died over, and another one did again, once."""
    known: dict[tuple[str, ...], SchemaChange] = {}
    for at_us, name, table, column, change, kind in session.rows(_CHANGES, schema):
        known.setdefault((table, column, change, kind), SchemaChange(at_us, name, table, column, Change(change), kind))
    return list(known.values())


def _type(kind: str, digits: int | None) -> ColumnType:
    return ColumnType.INTEGER if kind == "NUMBER" and digits == _INTEGER_DIGITS else _KINDS.get(kind, ColumnType.TEXT)
