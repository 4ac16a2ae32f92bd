"""Rows on their way into a table: one statement per table, prepared once.

A load brings hundreds of tables a few rows each. To read such a statement, find its table and columns and plan it costs DuckDB twice what
running it does, and a view over an Arrow batch for it to read from as much again. So the view is over an object that stands for whatever
rows come next, and the statement stays prepared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import duckdb
import pyarrow as pa

from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.warehouses.duckdb import sql

MOST_KEPT: Final = 2_000
"""Tables whose statements are kept, at some 10 KB; before one more, all are given back."""


class _Feed:
    """What the statement of one table reads; an object with Arrow's PyCapsule interface.

    Args:
        name: of its view, and of the statement.
        columns: Arrow types by name.

    Attributes:
        version: of the database's tables for which the statement was prepared; 0: it is not.
    """

    __slots__ = ("_batches", "_schema", "columns", "name", "version")

    def __init__(self, name: str, columns: Mapping[str, Any]) -> None:
        self.name = name
        self.columns = columns
        self.version = 0
        self._schema = pa.schema(list(columns.items()))
        self._batches: list[Any] = []

    def takes(self, schema: Any) -> bool:
        """Whether rows of an Arrow schema have no other columns."""
        return all(self.columns.get(column.name) == column.type for column in schema)

    def hold(self, rows: Any) -> None:
        """Keeps rows for the statement; the columns that they lack are empty."""
        given = dict(zip(rows.schema.names, rows.columns, strict=True))
        arrays = [given[name] if name in given else pa.nulls(rows.num_rows, kind) for name, kind in self.columns.items()]
        self._batches = [pa.RecordBatch.from_arrays(arrays, schema=self._schema)]

    def let_go(self) -> None:
        """Keeps no rows any more."""
        self._batches = []

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches).__arrow_c_stream__(requested_schema)


class Feeds:
    """The prepared statements of a connection.

    Args:
        connection: that loads.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._feeds: dict[tuple[str, str], _Feed] = {}
        self._version = 1

    def load(self, load: TableLoad) -> None:
        """Appends or merges the rows of a table, all of whose columns exist."""
        feed = self._feed(load)
        feed.hold(load.rows)
        try:
            self._connection.execute(self._statement(feed, load))
        finally:
            feed.let_go()

    def tables_changed(self) -> None:
        """Has statements prepared anew: DuckDB would plan one from before a change of any table at every execution."""
        self._version += 1

    def forget(self) -> None:
        """Gives all back. A transaction that is taken back takes the views along that were made in it."""
        for feed in self._feeds.values():
            self._deallocate(feed)
            with contextlib.suppress(duckdb.Error):
                self._connection.unregister(feed.name)
        self._feeds.clear()

    def _feed(self, load: TableLoad) -> _Feed:
        key = load.schema, load.table
        feed = self._feeds.get(key)
        if feed is not None and feed.takes(load.rows.schema):
            return feed
        columns = {column.name: column.type for column in load.rows.schema}
        if feed is None:
            if len(self._feeds) >= MOST_KEPT:
                self.forget()
            fresh = _Feed(f"cdi_rows_{len(self._feeds)}", columns)
        else:
            # With the columns of before: two loads in turns, each without columns of the other, would have it prepared for ever.
            self._deallocate(feed)
            fresh = _Feed(feed.name, {**feed.columns, **columns})
        self._connection.register(fresh.name, fresh)
        self._feeds[key] = fresh
        return fresh

    def _statement(self, feed: _Feed, load: TableLoad) -> str:
        if load.merge_keys:  # DuckDB prepares no MERGE
            return sql.merge(load.schema, load.table, feed.name, load.merge_keys, list(feed.columns))
        if feed.version != self._version:
            self._deallocate(feed)
            self._connection.execute(f"prepare {feed.name} as {sql.append(load.schema, load.table, feed.name)}")
            feed.version = self._version
        return f"execute {feed.name}"

    def _deallocate(self, feed: _Feed) -> None:
        if feed.version:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute(f"deallocate {feed.name}")
            feed.version = 0
