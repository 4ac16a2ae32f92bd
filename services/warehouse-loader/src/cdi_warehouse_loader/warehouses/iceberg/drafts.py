"""What a load does to tables, before anybody sees it: new data files, and those that they replace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.manifest import DataFile

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.columns import ARROW, ColumnType
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.warehouses.iceberg import fields, table
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY
from cdi_warehouse_loader.warehouses.iceberg.files import FileWriter, copy, field_ids, filled, split
from cdi_warehouse_loader.warehouses.iceberg.merging import Merging
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable

Name = tuple[str, str]
"""Schema and table."""

Tables = Mapping[Name, LakeTable]


class TableDraft:
    """A table to be.

    Args:
        storage: where.
        base: the table as it is.
        writes: whether anything is written; otherwise rows are only looked at.
    """

    def __init__(self, storage: Storage, base: LakeTable, *, writes: bool) -> None:
        self.base = base
        self.schema = base.metadata.schema()
        self.added: list[DataFile] = []
        self.removed: set[str] = set()
        self.superseded: set[str] = set()
        self.is_exact = False
        self._storage = storage
        self._writes = writes
        self._columns: Mapping[str, ColumnType] = base.columns

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.added or self.removed or not self.base.location or self.schema is not self.base.metadata.schema())

    @property
    def place(self) -> str:
        """Where the table lies."""
        return self.base.metadata.location

    @property
    def files(self) -> list[DataFile]:
        """Its data files as the draft has them."""
        return [file for name, file in self.base.files.items() if name not in self.removed] + self.added

    def alter(self, added: Mapping[str, ColumnType], widened: Sequence[str]) -> None:
        """Adds columns and makes double of integers."""
        news = {name: kind for name, kind in added.items() if name not in self._columns}
        wider = [name for name in widened if self._columns.get(name) is not ColumnType.DOUBLE]
        if not news and not wider:
            return
        narrow = {self.schema.find_field(name).field_id for name in wider}
        last = max([self.base.metadata.last_column_id, *self.schema.field_ids])
        self.schema = fields.changed(self.schema, news, wider, last)
        self._columns = fields.columns_of(self.schema)
        if narrow and self._writes:
            self.is_exact = True
            self._write_anew([file for file in self.files if narrow & field_ids(self._storage, file.file_path)])

    def take(self, load: TableLoad) -> None:
        """Adds rows, or merges them by key.

        Raises:
            ValueError: a column is not one of the table's.
            pa.ArrowInvalid: a value does not fit its column.
        """
        rows = load.rows
        if rows is None or not rows.num_rows:
            return
        for name in rows.schema.names:
            if name not in self._columns:
                raise ValueError(f"{load.schema}.{load.table} has no column {name}")
        if not self._writes:
            _check(rows, self._columns)
            return
        if load.merge_keys:
            self.is_exact = True
            merging = Merging(self._storage, self.files, rows, load.merge_keys)
            self._write_anew(merging.files, merging.stays)
            rows = merging.rows()
        self._append(rows)

    def empty(self) -> None:
        """Takes all rows out."""
        self.is_exact = True
        self.replace(self.files, [])

    def replace(self, files: Iterable[DataFile], by: Sequence[DataFile]) -> None:
        """Files stand in place of others."""
        names = {file.file_path for file in files}
        self.removed |= names
        self.superseded |= {file.file_path for file in self.added} & names
        self.added = [file for file in self.added if file.file_path not in names] + list(by)

    def rebase(self, now: LakeTable | None) -> None:
        """Takes over what others have done to the table since the draft was begun.

        Raises:
            Unavailable: it was more than adding rows, or the draft rests on all rows that there were.
        """
        before = self.base
        if (now.location if now is not None else "") == before.location:
            return
        names = now.files.keys() if now is not None else ()
        if now is None or self.is_exact or not before.location or now.metadata.schema() != before.metadata.schema():
            raise Unavailable(DEPENDENCY, "another process has changed the tables", retry_after=0.1)
        if any(name not in names for name in self.removed if name in before.files):
            raise Unavailable(DEPENDENCY, "another process has replaced files of the tables", retry_after=0.1)
        self.base = now
        if self.schema is before.metadata.schema():
            self.schema = now.metadata.schema()

    def next(self) -> LakeTable:
        """Writes the rest of the commit."""
        self._storage.delete(sorted(self.superseded))
        removed = [name for name in self.removed if name in self.base.files]
        return table.next_of(self._storage, self.base, self.schema, self.added, removed)

    def _append(self, rows: Any) -> None:
        rows = rows.select(filled(rows))
        for partition, piece in split(rows, self.schema, self.base.metadata.spec()):
            writer = FileWriter(self._storage, self.place, self.schema, piece.schema.names, partition)
            try:
                writer.add(piece)
            except BaseException:
                writer.abandon()
                raise
            self.added.append(writer.close())

    def _write_anew(self, files: Sequence[DataFile], mask: Any = None) -> None:
        for file in files:
            written = copy(self._storage, self.place, self.schema, [file], mask)
            self.replace([file], [written] if written is not None else [])


class Draft:
    """All tables of a load.

    Args:
        storage: where.
        tables: as they are.
        writes: whether anything is written.
    """

    def __init__(self, storage: Storage, tables: Tables, *, writes: bool = True) -> None:
        self._storage = storage
        self._tables = tables
        self._writes = writes
        self._drafts: dict[Name, TableDraft] = {}
        self._staged: list[LakeTable] = []

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to commit."""
        return any(draft.is_changed for draft in self._drafts.values())

    def take(self, load: TableLoad) -> TableLoad:
        """Does what is asked of one table; see ``TableDraft.take``."""
        draft = self.of((load.schema, load.table), load.added)
        draft.alter(load.added, load.widened)
        draft.take(load)
        return load.done()

    def of(self, name: Name, columns: Mapping[str, ColumnType]) -> TableDraft:
        """The draft of a table, which begins with the columns if it is new."""
        if name not in self._drafts:
            base = self._tables.get(name) or table.new(self._storage, *name, fields.schema_of(columns))
            self._drafts[name] = TableDraft(self._storage, base, writes=self._writes)
        return self._drafts[name]

    def empty(self, name: Name) -> None:
        """Takes all rows out of a table."""
        self.of(name, {}).empty()

    def staged(self, now: Tables) -> dict[Name, LakeTable]:
        """Writes what commits consist of beside data files, on the tables as they are now, and makes all files last.

        Raises:
            Unavailable: others have changed the tables so that the draft no longer fits.
        """
        changed = {name: draft for name, draft in self._drafts.items() if draft.is_changed}
        for name, draft in changed.items():
            draft.rebase(now.get(name))
        found: dict[Name, LakeTable] = {}
        for name, draft in changed.items():
            found[name] = draft.next()
            self._staged.append(found[name])
        self._storage.settle(sorted(self._written(found.values())))
        return found

    def discard(self) -> None:
        """Deletes all that was written; nothing of it was committed."""
        superseded = {name for draft in self._drafts.values() for name in draft.superseded}
        self._storage.delete(sorted(self._written(self._staged) | superseded))

    def _written(self, staged: Iterable[LakeTable]) -> set[str]:
        names = {file.file_path for draft in self._drafts.values() for file in draft.added}
        for one in staged:
            names |= one.names
        for draft in self._drafts.values():
            names -= draft.base.names if draft.base.location else set()
        return names


def _check(rows: Any, columns: Mapping[str, ColumnType]) -> None:
    """Whether values fit their columns."""
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        kind = ARROW[columns[name]]
        if column.type != kind and not (pa.types.is_dictionary(column.type) and column.type.value_type == kind):
            column.cast(kind)
