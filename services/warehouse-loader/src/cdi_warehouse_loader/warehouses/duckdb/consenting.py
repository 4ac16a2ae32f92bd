"""Queries that may see only what people have consented to: views of the same names stand before the tables.

The views lie in a database in memory, for the time of one transaction. A statement may name nothing but them, which its syntax tree shows:
no table but of the schemas with views, and of the functions that make rows only those that make them of their arguments. What stands before
the only dot of a name may be a database as well as a schema, so it is looked at too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import duckdb

from cdi_warehouse_loader.domain.columns import json_text
from cdi_warehouse_loader.domain.documents import RESERVED_SCHEMAS
from cdi_warehouse_loader.domain.layout import is_event_table
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.warehouses.answers import refused
from cdi_warehouse_loader.warehouses.duckdb.sql import place, quoted

BEFORE: Final = "memory"
"""The database of the views, in which the statement is run."""

_PURPOSES: Final = "consent_purposes"
_ROWS_OF_ARGUMENTS: Final = frozenset({"range", "generate_series", "unnest"})


def views(catalog: Catalog, purposes: frozenset[str]) -> Iterator[str]:
    """Statements that make the views: rows of events that carry all the purposes. Tables whose rows carry none are left out."""
    for schema, tables in catalog.items():
        yield f"create schema if not exists {BEFORE}.{quoted(schema)}"
        for table, columns in tables.items():
            if is_event_table(table, columns) and _PURPOSES in columns:
                yield f"create view {BEFORE}.{place(schema, table)} as from warehouse.{place(schema, table)} where {_all(purposes)}"


def check_names(connection: duckdb.DuckDBPyConnection, sql: str, catalog: Catalog) -> None:
    """Whether a statement names nothing but the views.

    Args:
        connection: parses it.
        sql: the statement.
        catalog: the schemas that have views; no schema is called as a database is (``domain.documents.RESERVED_SCHEMAS``).

    Raises:
        InvalidArgument: it does, or it is no SELECT.
    """
    ((text,),) = connection.execute("select json_serialize_sql($1)", [sql]).fetchall()
    tree = json.loads(text)
    if tree.get("error"):
        raise refused("with purposes, only a SELECT is allowed")
    allowed = {"", *catalog} - RESERVED_SCHEMAS
    for node in _nodes(tree):
        if node.get("type") == "SHOW_REF":
            raise refused("with purposes, only a SELECT is allowed")
        if node.get("type") == "BASE_TABLE" and (node["catalog_name"] or node["schema_name"].lower() not in allowed):
            raise refused("with purposes, only tables of the warehouse's schemas may be named, without their database")
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node.get("function", {}).get("function_name", ""))
            if name not in _ROWS_OF_ARGUMENTS:
                raise refused(f"with purposes, {name} may not be used")


def _nodes(tree: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _all(purposes: frozenset[str]) -> str:
    """Each purpose stands in the column as a JSON string, whose quotes end it."""
    texts = (json_text(purpose).replace("'", "''") for purpose in sorted(purposes))
    return " and ".join(f"contains({_PURPOSES}, '{text}')" for text in texts)
