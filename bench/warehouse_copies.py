"""Tables of a hundred million rows in minutes: those that are there already, copied many times over."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

from cdi_warehouse_loader.warehouses.duckdb.file import attach

_COPIED_FROM: Final = 10_000
"""Rows of a table that is copied: the loader's small ones, such as users, stay as they are."""

_TABLES: Final = """
    SELECT schema_name || '.' || table_name, estimated_size FROM duckdb_tables()
    WHERE database_name = current_database() AND NOT internal AND schema_name NOT LIKE '\\_%' ESCAPE '\\' AND estimated_size >= ?
"""


def multiply(path: Path, rows: int) -> int:
    """Copies the rows of the large tables of a DuckDB file that nobody has open until they have about ``rows`` together.

    Their ids are then there many times, which no load looks at.

    Returns:
        How many rows were added.
    """
    with duckdb.connect(config={"memory_limit": "8GB", "threads": 2}) as connection:
        attach(connection, path, "warehouse")
        connection.execute("USE warehouse")
        connection.execute("SET preserve_insertion_order = false")
        tables = connection.execute(_TABLES, [_COPIED_FROM]).fetchall()
        before: int = sum(size for _, size in tables)
        copies = max(rows // before - 1, 0)
        for table, _ in tables:
            connection.execute(f"CREATE TEMP TABLE piece AS SELECT * FROM {table}")
            for _ in range(copies):
                connection.execute(f"INSERT INTO {table} SELECT * FROM piece")
            connection.execute("DROP TABLE piece")
        return copies * before
