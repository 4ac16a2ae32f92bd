"""What the embedded warehouse says of itself: tables, positions, counts."""

from __future__ import annotations

from typing import Final

import duckdb
import msgspec

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import Change, LoadEntry, SchemaChange
from cdi_warehouse_loader.warehouses.duckdb import sql

_TYPES: Final = {str(kind): kind for kind in ColumnType}


def catalog(connection: duckdb.DuckDBPyConnection) -> Catalog:
    """Tables and columns of all schemas but the loader's own."""
    found: dict[str, dict[str, dict[str, ColumnType]]] = {}
    for schema, table, column, kind in connection.execute(sql.READ_CATALOG).fetchall():
        found.setdefault(schema, {}).setdefault(table, {})[column] = _TYPES.get(kind, ColumnType.TEXT)
    return found


def positions(connection: duckdb.DuckDBPyConnection) -> dict[StreamPartition, Position]:
    """How far each partition is loaded."""
    rows = connection.execute(sql.READ_POSITIONS).fetchall()
    return {StreamPartition(row[0], row[1]): Position(row[2], row[3]) for row in rows}


def counts(connection: duckdb.DuckDBPyConnection) -> dict[CountKey, int]:
    """What became of the events, by key."""
    return {CountKey(row[0], row[1], row[2]): row[3] for row in connection.execute(sql.READ_COUNTS).fetchall()}


def loads(connection: duckdb.DuckDBPyConnection, limit: int) -> list[LoadEntry]:
    """The newest entries of the log."""
    return [LoadEntry(*row) for row in connection.execute(sql.READ_LOG, [limit]).fetchall()]


def schema_changes(connection: duckdb.DuckDBPyConnection, schema: str) -> list[SchemaChange]:
    """The history of a schema."""
    return [
        SchemaChange(at, name, table, column, Change(change), kind)
        for at, text in connection.execute(sql.READ_CHANGES).fetchall()
        for name, table, column, change, kind in msgspec.json.decode(text)
        if name == schema
    ]
