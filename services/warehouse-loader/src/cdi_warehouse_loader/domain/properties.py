"""The columns of one table in one load: the table's own, and those that the objects of its events bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cdi_warehouse_loader.domain.batch_columns import BatchColumns, Part, Picks
from cdi_warehouse_loader.domain.columns import NAME_COLLISION, SCHEMA_FROZEN, ColumnType, fit, json_text, text
from cdi_warehouse_loader.domain.flatten import Names, flatten
from cdi_warehouse_loader.domain.layout import MAX_COLUMNS, Columns
from cdi_warehouse_loader.domain.load import Discard
from cdi_warehouse_loader.domain.naming import UNMAPPED
from cdi_warehouse_loader.domain.planned_types import ColumnRules
from cdi_warehouse_loader.domain.rows import EventColumns


class TableColumns:
    """Collects the columns of one table.

    Args:
        table: its name.
        known: its columns so far.
        columns: the batch that the rows come from.
        discards: receives the values that do not fit.
        rules: of new columns.

    Attributes:
        added: columns that the table must get.
        widened: integer columns that must become double.
    """

    def __init__(self, table: str, known: Columns, columns: EventColumns, discards: list[Discard], rules: ColumnRules) -> None:
        self.table = table
        self.known = known
        self._frozen = rules.frozen
        self._planned = rules.planned.get(table, {})
        self.added: dict[str, ColumnType] = {}
        self.widened: list[str] = []
        self._columns = columns
        self._discards = discards
        self._names: list[str] = []
        self._arrays: list[Any] = []

    @property
    def full(self) -> bool:
        """No further column may be added; one place is kept for ``_unmapped``."""
        return len(self.known) + len(self.added) >= MAX_COLUMNS - (UNMAPPED not in self.known)

    def add(self, name: str, array: Any) -> None:
        """A column of the table's own."""
        self._names.append(name)
        self._arrays.append(array)

    def add_picked(self, columns: BatchColumns, picks: Picks | Part) -> None:
        """The table's part of columns of the batch."""
        self._names += columns
        self._arrays += map(picks.of, columns.values())

    def add_objects(self, rows: Sequence[int], objects: Sequence[Mapping[str, Any]], names: Names) -> list[int]:
        """Columns from properties or traits.

        Args:
            rows: per object, its event in the batch.
            objects: decoded.
            names: column names of this kind of table.

        Returns:
            Per row of the table, its event in the batch: every other column must follow this order.
        """
        flat = flatten(objects, names)
        order = [rows[place] for place in flat.order]
        unmapped: dict[int, dict[str, Any]] = {}
        for name, values in flat.columns.items():
            known = self.known.get(name)
            if known is None and self._frozen:
                self._turn_away(name, values, order)
                continue
            if known is None and self.full:
                _put_aside(unmapped, name, values)
                continue
            self._add_values(name, values, known, order)
        for collision in flat.collisions:
            self.discard(order[collision.row], collision.column, collision.value, NAME_COLLISION)
        if unmapped:
            texts = [json_text(unmapped[row]) if row in unmapped else None for row in range(len(order))]
            self._add_values(UNMAPPED, texts, self.known.get(UNMAPPED, ColumnType.TEXT), order)
            if UNMAPPED not in self.known:
                self.added[UNMAPPED] = ColumnType.TEXT
        return order

    def discard(self, event: int, column: str, value: str, reason: str) -> None:
        """Keeps a value that has no place in its column."""
        message_id = self._columns.events[event].message_id
        self._discards.append((message_id, self.table, column, value, reason, self._columns.received_us[event]))

    def batch(self) -> Any:
        """The rows."""
        return pa.RecordBatch.from_arrays(self._arrays, self._names)

    def _turn_away(self, name: str, values: Sequence[Any], order: Sequence[int]) -> None:
        """A property that the table may not get a column for."""
        for row, value in enumerate(values):
            if value is not None:
                self.discard(order[row], name, text(value), SCHEMA_FROZEN)

    def _add_values(self, name: str, values: list[Any], known: ColumnType | None, order: Sequence[int]) -> None:
        if known is None and not any(value is not None for value in values):
            return
        fitted = fit(values, known or self._planned.get(name), frozen=self._frozen)
        if fitted is None:
            return
        if known is None:
            self.added[name] = fitted.type
        elif fitted.type is not known:
            self.widened.append(name)
        self.add(name, fitted.array)
        for misfit in fitted.misfits:
            self.discard(order[misfit.row], name, misfit.value, misfit.reason)


def _put_aside(unmapped: dict[int, dict[str, Any]], name: str, values: Sequence[Any]) -> None:
    for row, value in enumerate(values):
        if value is not None:
            unmapped.setdefault(row, {})[name] = value
