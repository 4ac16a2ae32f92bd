"""Context columns of one schema. They have the same type in all of its tables, so that they are fitted once per batch.

A table gets a context column when one of its own events has a value for it, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from cdi_warehouse_loader.domain.columns import NAME_COLLISION, TOO_MANY_COLUMNS, Fitted, fit, text
from cdi_warehouse_loader.domain.flatten import Flat
from cdi_warehouse_loader.domain.layout import Columns
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.domain.properties import TableColumns


class SharedContext:
    """The distinct contexts of a batch, fitted to the columns of a schema.

    Args:
        tables: the schema's tables and columns so far.
        context: the distinct contexts, flattened.
        context_row: per event, its row in ``context``.
    """

    def __init__(self, tables: Mapping[str, Columns], context: Flat, context_row: list[int]) -> None:
        self._tables = tables
        self._context = context
        self._row_of = context_row
        self._fitted: dict[str, Fitted] = {}
        self._widened: set[str] = set()
        for name, values in context.columns.items():
            known = next((columns[name] for columns in tables.values() if name in columns), None)
            fitted = fit(values, known)
            if fitted is not None:
                self._fitted[name] = fitted
                if known is not None and fitted.type is not known:
                    self._widened.add(name)
        self._names = list(self._fitted)
        indices = pa.array(context_row, pa.int32())
        arrays = [pa.DictionaryArray.from_arrays(indices, fitted.array) for fitted in self._fitted.values()]
        self._batch = pa.RecordBatch.from_arrays(arrays, self._names)
        self._wrong = [
            *((misfit.row, name, misfit.value, misfit.reason) for name, fitted in self._fitted.items() for misfit in fitted.misfits),
            *((collision.row, collision.column, collision.value, NAME_COLLISION) for collision in context.collisions),
        ]

    def add_to(self, built: TableColumns, rows: Sequence[int], picks: Any) -> None:
        """Adds the context columns of some events to their table.

        Args:
            built: the table.
            rows: its events in the order of its rows.
            picks: the same as an Arrow array, ``None`` for all events.
        """
        names = self._names
        if any(name not in built.known for name in names):
            names = self._wanted(built, rows)
        if names:
            built.add_batch(self._batch if len(names) == len(self._names) else self._batch.select(names), picks)
        built.widened += [name for name in self._widened if name in built.known]
        if self._wrong:
            wrong: dict[int, list[tuple[str, str, str]]] = {}
            for row, *found in self._wrong:
                wrong.setdefault(row, []).append((found[0], found[1], found[2]))
            for event in rows:
                for column, value, reason in wrong.get(self._row_of[event], ()):
                    built.discard(event, column, value, reason)

    def widenings(self, schema: str, loaded: Set[str]) -> list[TableLoad]:
        """Tables that have a widened column and get no rows now: they must follow, so that the type stays one."""
        found: list[TableLoad] = []
        for table, columns in self._tables.items():
            names = [name for name in self._widened if name in columns]
            if names and table not in loaded:
                found.append(TableLoad(schema, table, None, widened=names))
        return found

    def _wanted(self, built: TableColumns, rows: Sequence[int]) -> list[str]:
        """Columns that the table has, or now gets because one of its events has a value."""
        used = {self._row_of[row] for row in rows}
        wanted: list[str] = []
        for name in self._names:
            if name not in built.known:
                values = self._context.columns[name]
                if all(values[row] is None for row in used):
                    continue
                if built.full:
                    self._turn_away(built, name, rows)
                    continue
                built.added[name] = self._fitted[name].type
            wanted.append(name)
        return wanted

    def _turn_away(self, built: TableColumns, name: str, rows: Sequence[int]) -> None:
        """A context column that the table has no room for."""
        values = self._context.columns[name]
        for event in rows:
            value = values[self._row_of[event]]
            if value is not None:
                built.discard(event, name, text(value), TOO_MANY_COLUMNS)
