"""Starts bqemulator with what it lacks for these tests; run by the Python of its own environment, with the emulator's arguments.

Left out: DuckDB's extension for geography, which it would fetch from the network when it starts, and which nothing here needs. Added:
several ``ADD COLUMN`` in one ``ALTER TABLE``, as BigQuery has them. Replaced: ``INFORMATION_SCHEMA.COLUMNS``, which does not see what
``ALTER TABLE`` has done; here it says what DuckDB has.
"""

import re
from typing import Any

from bqemulator.cli import main
from bqemulator.jobs import executor
from bqemulator.scripting import interpreter, parser
from bqemulator.scripting.ast import Script, SqlStmt
from bqemulator.sql.rewriter import information_schema
from bqemulator.storage.engine import DuckDBEngine

_MANY = re.compile(r"\s*(ALTER TABLE \S+) (ADD COLUMN .*)", re.DOTALL)
_TYPES = {
    "VARCHAR": "STRING",
    "BIGINT": "INT64",
    "DOUBLE": "FLOAT64",
    "BOOLEAN": "BOOL",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "BLOB": "BYTES",
}
_COLUMNS = "select table_name, column_name, column_index, data_type from duckdb_columns() where schema_name = ?"
_engines: list[DuckDBEngine] = []


def _parse(source: str) -> Script:
    statements: list[Any] = []
    for statement in parser.parse_script(source).statements:
        many = _MANY.fullmatch(statement.sql) if isinstance(statement, SqlStmt) else None
        added = many[2].removeprefix("ADD COLUMN ").split(", ADD COLUMN ") if many else ()
        statements += [SqlStmt(f"{many[1]} ADD COLUMN {column}") for column in added] if many else [statement]
    return Script(tuple(statements))


def _columns(tables: Any, project: str, dataset: str) -> str:
    """A query of the columns; all of them are one text, because the emulator parses it."""
    found = _engines[0].execute(_COLUMNS, [f"{project}__{dataset}"]).fetchall()
    rows = ";".join(f"{table}|{column}|{place}|{_TYPES.get(kind, kind)}" for table, column, place, kind in found)
    names = ("table_name", "column_name", "ordinal_position", "data_type")
    parts = [f"SPLIT(r, '|')[OFFSET({number})]" for number in range(len(names))]
    parts[2] = f"CAST({parts[2]} AS INT64)"
    chosen = ", ".join(f"{part} AS {name}" for part, name in zip(parts, names, strict=True))
    return f"(SELECT {chosen} FROM UNNEST(SPLIT('{rows}', ';')) AS r WHERE r <> '')"


DuckDBEngine._load_spatial = lambda self: _engines.append(self)
executor.parse_script = interpreter.parse_script = _parse
information_schema._columns_as_values = _columns
main()
