"""Queries of people on the lake: DuckDB, in memory, with one view per table over its data files.

Made anew for each query: it can read the files of the tables that the query names, and nothing else. The other tables are there without
rows, so that their columns can be asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import duckdb

from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.layout import OWN_COLUMNS
from cdi_warehouse_loader.ports import Question, Rows
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb import consenting, identity, sql
from cdi_warehouse_loader.warehouses.duckdb.query import run_query, stream_query
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY
from cdi_warehouse_loader.warehouses.iceberg.drafts import Tables
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable

_BEHIND_VIEWS: Final = frozenset(OWN_COLUMNS) | {
    naming.ID_GRAPH_UPDATES,
    naming.EXTERNAL_ID_MAPPING_UPDATES,
    naming.PROFILE_TRAITS_UPDATES,
}
_VIEWS: Final = (*naming.VIEWS, naming.BY_PERSON)
_NAMES_BY_TEXT: Final = "query"
"""In the names of DuckDB's functions that make a table's name of a text."""


def run(storage: Storage, tables: Tables, question: Question, options: Options) -> Rows:
    """See ``ports.Warehouse.query``."""
    with _database(storage, tables, question, options) as (connection, before):
        return run_query(connection, question.sql, question.limits, before=before)


def stream(storage: Storage, tables: Tables, question: Question, options: Options, take: Callable[[Any], None]) -> bool:
    """See ``ports.Warehouse.stream``."""
    with _database(storage, tables, question, options) as (connection, before):
        return stream_query(connection, question.sql, question.limits, take, before)


@contextlib.contextmanager
def _database(
    storage: Storage, tables: Tables, question: Question, options: Options
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Iterable[str]]]:
    """A database for one question, and what is to be done in it before."""
    connection = duckdb.connect(":memory:", config={"threads": options.threads, "memory_limit": options.memory_limit})
    try:
        connection.execute("attach ':memory:' as warehouse")
        connection.execute("set global timezone = 'UTC'")
        connection.execute("set global temp_directory = ''")
        if not storage.is_local:
            _reach(connection, storage)
        named = _named(question.sql, {name for _, name in tables})
        shown = {name: table for name, table in tables.items() if name[1] in named}
        files = [storage.readable(file) for table in shown.values() for file in table.files]
        connection.execute(f"set global allowed_paths = {_list(files)}")
        for statement in _statements(storage, tables, shown, with_views=not shown or _asks_views(question.sql)):
            connection.execute(statement)
        connection.execute("set global enable_external_access = false")
        connection.execute("set global lock_configuration = true")
        if not question.purposes:
            connection.execute("use warehouse")
            yield connection, ()
        else:
            catalog: dict[str, dict[str, Any]] = {}
            for (schema, name), table in tables.items():
                catalog.setdefault(schema, {})[name] = table.columns
            consenting.check_names(connection, question.sql, catalog)
            yield connection, consenting.views(catalog, question.purposes)
    except duckdb.IOException as error:
        raise _replaced() from error
    except InvalidArgument as fault:
        if isinstance(fault.__cause__, duckdb.IOException):
            raise _replaced() from fault
        raise
    finally:
        connection.close()


def _replaced() -> Unavailable:
    return Unavailable(DEPENDENCY, "files of the lake were replaced while they were read", retry_after=0.1)


def _named(text: str, tables: Iterable[str]) -> set[str]:
    """The tables that a statement may read: whose names stand anywhere in it."""
    text = text.lower()
    if _NAMES_BY_TEXT in text:
        return set(tables)
    found = {name for name in tables if name in text}
    return found | _BEHIND_VIEWS if _asks_views(text) else found


def _asks_views(text: str) -> bool:
    return any(view in text.lower() for view in _VIEWS)


def _statements(storage: Storage, tables: Tables, shown: Tables, *, with_views: bool) -> Iterator[str]:
    """Makes the tables; and the views of the identity graph, which cost more than a small query, when they are wanted."""
    yield "use warehouse"
    for schema in sorted({schema for schema, _ in tables}):
        yield f"create schema if not exists {sql.quoted(schema)}"
    for (schema, name), table in tables.items():
        if (schema, name) in shown and table.files:
            yield _view(storage, schema, name, table)
        else:
            yield sql.create_table(schema, name, table.columns)
    for schema in sorted({schema for schema, name in tables if with_views and name == naming.ID_GRAPH_UPDATES}):
        yield from identity.views(schema)
    yield f"use {consenting.BEFORE}"


def _view(storage: Storage, schema: str, name: str, table: LakeTable) -> str:
    """A table as its files have it, by the numbers of the columns; columns that a file lacks are NULL in its rows."""
    numbers: Mapping[str, int] = {field.name: field.field_id for field in table.metadata.schema().fields}
    columns = ", ".join(
        f"{numbers[column]}: {{name: {sql.literal(column)}, type: '{kind}', default_value: NULL}}" for column, kind in table.columns.items()
    )
    files = _list(storage.readable(file) for file in table.files)
    return f"create view {sql.place(schema, name)} as from read_parquet({files}, schema = map {{{columns}}})"


def _reach(connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
    """Lets DuckDB read what pyarrow reaches."""
    from fsspec.implementations.arrow import ArrowFSWrapper  # not needed for a folder of this machine

    scheme, file_system = storage.file_system()
    reaching = type("LakeFiles", (ArrowFSWrapper,), {"protocol": scheme})
    connection.register_filesystem(reaching(file_system))


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(sql.literal, texts)) + "]"
