"""Queries that may see only what people have consented to: the server filters the rows of every table that a statement reads.

The setting ``additional_table_filters`` says which rows of each table there are, wherever it is read: in a view, in a subquery, after
``IN``. A question that is read-only can change no setting. So a statement may name the warehouse's tables as it likes; what it may not is
to read others, or by functions that the setting does not reach (``merge``), which the server's own syntax tree shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import json_text
from cdi_warehouse_loader.domain.layout import is_event_table
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.warehouses.answers import refused
from cdi_warehouse_loader.warehouses.clickhouse.connection import Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import stored_name, text

_PURPOSES: Final = "consent_purposes"
_NOTHING: Final = "0"
_TABLE: Final = re.compile(r"^ *TableIdentifier (.*?)(?: \(alias .*\))?$")
_IDENTIFIER: Final = re.compile(r"^ *Identifier (.*?)(?: \(alias .*\))?$")
_FROM: Final = re.compile(r"^( *)TableExpression ")
_FUNCTION: Final = re.compile(r"^ *Function (\S+)")
_ROWS_OF_ARGUMENTS: Final = frozenset({"numbers", "values", "generate_series", "generateSeries", "view"})
_EXISTING: Final = "select database || '.' || name from system.tables where database || '.' || name in ({})"


def table_filters(catalog: Catalog, purposes: frozenset[str]) -> str:
    """Which rows of each table there are: of events those that carry all the purposes, of the others none.

    Tables of which there is none stand first: a table is also known by its alias, and the first that fits counts.
    """
    shown = _all(purposes)
    filters: list[tuple[str, str]] = []
    for schema, tables in catalog.items():
        for table, columns in tables.items():
            carries = is_event_table(table, columns) and _PURPOSES in columns
            filters.append((f"{schema}.{stored_name(table)}", shown if carries else _NOTHING))
    filters.sort(key=lambda one: one[1] != _NOTHING)
    return "{" + ", ".join(f"{text(place)}: {text(kept)}" for place, kept in filters) + "}"


def check_names(connection: Connection, statement: str, catalog: Catalog, database: str) -> None:
    """Whether a statement reads nothing but what the filters reach.

    Args:
        connection: without a limit of rows.
        statement: as the server's parser has written it.
        catalog: the warehouse's tables.
        database: where a name without a database is looked for.

    Raises:
        InvalidArgument: it does, or it is no SELECT.
    """
    if not statement.lstrip("(").startswith(("SELECT", "WITH")):
        raise refused("with purposes, only a SELECT is allowed")
    tree = [str(line) for (line,) in connection.client.query(f"explain ast {statement}").result_rows]
    for name in _functions(tree):
        if name not in _ROWS_OF_ARGUMENTS:
            raise refused(f"with purposes, {name} may not be used")
    # What is no table is a query's own name, a column, or an error that the server tells.
    named = {name if "." in name else f"{database}.{name}" for name in _names(tree)}
    existing = {place for (place,) in connection.client.query(_EXISTING.format(", ".join(map(text, ("", *named))))).result_rows}
    if not existing <= set(_places(catalog)):
        raise refused("with purposes, only tables of the warehouse's schemas may be named")


def _places(catalog: Catalog) -> Iterator[str]:
    for schema, tables in catalog.items():
        for name in (*tables, *map(stored_name, tables), *naming.VIEWS):
            yield f"{schema}.{name}"


def _names(tree: Iterable[str]) -> Iterator[str]:
    """What may be the name of a table: after FROM and JOIN, and, where it may also be a column, after IN."""
    for line in tree:
        if found := _TABLE.match(line) or _IDENTIFIER.match(line):
            yield found[1]


def _functions(tree: list[str]) -> Iterator[str]:
    """The functions that stand where a table may stand."""
    for line, following in pairwise(tree):
        if _FROM.match(line) and (found := _FUNCTION.match(following)):
            yield found[1]


def _all(purposes: frozenset[str]) -> str:
    """Each purpose stands in the column as a JSON string, whose quotes end it."""
    return " and ".join(f"position({_PURPOSES}, {text(json_text(purpose))}) > 0" for purpose in sorted(purposes))
