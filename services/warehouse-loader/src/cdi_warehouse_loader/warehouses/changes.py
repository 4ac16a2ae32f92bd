"""What loads change of tables: as the history of the schema has it, and as the catalog has it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import TRACK_TABLE_COLUMNS
from cdi_warehouse_loader.domain.load import Catalog, TableLoad
from cdi_warehouse_loader.ports import Change


def changes_of(loads: Iterable[TableLoad], before: Catalog) -> Iterator[tuple[str, str, str, Change, str]]:
    """Schema, table, column, change and type of each change. The columns that every new table has are no news."""
    for load in loads:
        is_new = load.table not in before.get(load.schema, {})
        if is_new:
            yield load.schema, load.table, "", Change.TABLE_ADDED, ""
        for column, kind in load.added.items():
            if not (is_new and column in TRACK_TABLE_COLUMNS):
                yield load.schema, load.table, column, Change.COLUMN_ADDED, kind.value
        for column in load.widened:
            yield load.schema, load.table, column, Change.COLUMN_WIDENED, ColumnType.DOUBLE.value


def changed(before: Catalog, loads: Sequence[TableLoad]) -> Catalog:
    """The catalog after the loads; the given one stays as it is."""
    if not any(load.added or load.widened for load in loads):
        return before
    after = {schema: dict(tables) for schema, tables in before.items()}
    for load in loads:
        if load.added or load.widened:
            tables = after.setdefault(load.schema, {})
            widened = dict.fromkeys(load.widened, ColumnType.DOUBLE)
            tables[load.table] = {**tables.get(load.table, {}), **load.added, **widened}
    return after
