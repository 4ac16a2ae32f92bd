"""What a ClickHouse server says of its tables."""

from __future__ import annotations

from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.warehouses.clickhouse.connection import Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import LOAD, TYPES, seen_column, seen_name

_COLUMNS: Final = f"""select c.database, c.table, c.name, c.type from system.columns c
    join system.tables t on t.database = c.database and t.name = c.table
    where t.engine like '%ReplacingMergeTree' and c.name <> '{LOAD}'
    and c.database in (select database from system.columns where table = '{naming.ID_GRAPH_UPDATES}' and name = '{LOAD}')
    order by c.database, c.table, c.position"""
_KINDS: Final = {declared: kind for kind, declared in TYPES.items()}


def catalog(connection: Connection) -> Catalog:
    """Tables and columns of all schemas that are the loader's; other databases of the server are none of them."""
    found: dict[str, dict[str, dict[str, ColumnType]]] = {}
    for schema, table, column, declared in connection.rows(_COLUMNS):
        bare = declared.removeprefix("Nullable(").removesuffix(")") if declared.startswith("Nullable(") else declared
        found.setdefault(schema, {}).setdefault(seen_name(table), {})[seen_column(column)] = _KINDS.get(bare, ColumnType.TEXT)
    return found
