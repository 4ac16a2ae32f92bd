"""Context columns of one schema. They have the same type in all of its tables, so that they are fitted once per batch.

A table gets a context column when one of its own events has a value for it, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

from cdi_warehouse_loader.domain.batch_columns import BatchColumn, Coded, Each, Part
from cdi_warehouse_loader.domain.columns import NAME_COLLISION, SCHEMA_FROZEN, TOO_MANY_COLUMNS, ColumnType, Fitted, fit, text
from cdi_warehouse_loader.domain.contexts import ContextPart
from cdi_warehouse_loader.domain.layout import Columns
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.domain.properties import TableColumns

_Wrong = tuple[str, str, str]
"""Column, value and reason of a value that is discarded."""


_FEW: Final = 8
"""A column is a dictionary when it has at least so many rows per distinct value. Each table decodes the whole dictionary for its rows."""


class SharedContext:
    """The contexts of a batch, fitted to the columns of a schema.

    Args:
        tables: the schema's tables and columns so far.
        parts: the contexts of the batch.
        frozen: no column is added or widened.
    """

    def __init__(self, tables: Mapping[str, Columns], parts: Sequence[ContextPart], *, frozen: bool = False) -> None:
        self._tables = tables
        self._frozen = frozen
        self._part_of: dict[str, ContextPart] = {}
        self._types: dict[str, ColumnType] = {}
        self._widened: set[str] = set()
        self._wrong: list[tuple[ContextPart, dict[int, list[_Wrong]]]] = []
        self._columns: dict[str, BatchColumn] = {}
        for part in parts:
            for name, fitted in self._fit(part):
                self._part_of[name] = part
                self._types[name] = fitted.type
                self._columns[name] = _repeated(fitted, part.row_of)

    def add_to(self, built: TableColumns, rows: Sequence[int], picks: Part) -> None:
        """Adds the context columns of some events to their table.

        Args:
            built: the table.
            rows: its events in the order of its rows.
            picks: takes these rows.
        """
        columns = self._columns
        if any(name not in built.known for name in columns):
            columns = {name: columns[name] for name in self._wanted(built, rows)}
        built.add_picked(columns, picks)
        built.widened += [name for name in self._widened if name in built.known]
        for part, wrong in self._wrong:
            for event in rows:
                for column, value, reason in wrong.get(part.row_of[event], ()):
                    built.discard(event, column, value, reason)

    def widenings(self, schema: str, loaded: Set[str]) -> list[TableLoad]:
        """Tables that have a widened column and get no rows now: they must follow, so that the type stays one."""
        found: list[TableLoad] = []
        for table, columns in self._tables.items():
            names = [name for name in self._widened if name in columns]
            if names and table not in loaded:
                found.append(TableLoad(schema, table, None, widened=names))
        return found

    def _fit(self, part: ContextPart) -> Iterator[tuple[str, Fitted]]:
        """The columns of a part that have a value; notes what must widen and what does not fit."""
        wrong: dict[int, list[_Wrong]] = {}
        for collision in part.flat.collisions:
            wrong.setdefault(collision.row, []).append((collision.column, collision.value, NAME_COLLISION))
        for name, values in part.flat.columns.items():
            known = next((columns[name] for columns in self._tables.values() if name in columns), None)
            fitted = fit(values, known, frozen=self._frozen)
            if fitted is None:
                continue
            if known is not None and fitted.type is not known:
                self._widened.add(name)
            for misfit in fitted.misfits:
                wrong.setdefault(misfit.row, []).append((name, misfit.value, misfit.reason))
            yield name, fitted
        if wrong:
            self._wrong.append((part, wrong))

    def _wanted(self, built: TableColumns, rows: Sequence[int]) -> list[str]:
        """Columns that the table has, or now gets because one of its events has a value."""
        wanted: list[str] = []
        for name in self._columns:
            if name not in built.known:
                part = self._part_of[name]
                values = part.flat.columns[name]
                if all(values[row] is None for row in {part.row_of[event] for event in rows}):
                    continue
                if self._frozen or built.full:
                    self._turn_away(built, name, rows, SCHEMA_FROZEN if self._frozen else TOO_MANY_COLUMNS)
                    continue
                built.added[name] = self._types[name]
            wanted.append(name)
        return wanted

    def _turn_away(self, built: TableColumns, name: str, rows: Sequence[int], reason: str) -> None:
        """A context column that the table has no room for, or may not get."""
        part = self._part_of[name]
        values = part.flat.columns[name]
        for event in rows:
            value = values[part.row_of[event]]
            if value is not None:
                built.discard(event, name, text(value), reason)


def _repeated(fitted: Fitted, places: Sequence[int]) -> BatchColumn:
    """The values at these places."""
    if len(fitted.values) * _FEW > len(places):
        return Each(list(map(fitted.values.__getitem__, places)), fitted.type)
    return Coded(fitted.array, places)
