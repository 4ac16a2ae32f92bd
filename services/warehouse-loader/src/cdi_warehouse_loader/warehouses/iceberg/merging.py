"""Rows by key, as in ``users``: newer ones bring their values, older ones only fill what is empty.

Files are copied without the rows that are merged. Only those in which there are such rows: they are found by reading the keys of all files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from cdi_warehouse_loader.warehouses.iceberg.files import batches, without
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage

_TIME: Final = "timestamp"


class Merging:
    """Rows on their way into a table that has at most one per key.

    Args:
        storage: where.
        files: of the table.
        rows: at most one per key.
        keys: columns.

    Attributes:
        files: those in which there are rows to merge, to be copied without them.
    """

    def __init__(self, storage: Storage, files: Sequence[DataFile], rows: Any, keys: Sequence[str]) -> None:
        self._storage = storage
        self._rows = rows
        self._keys = keys
        self._places = {key: place for place, key in enumerate(zip(*(rows.column(one).to_pylist() for one in keys), strict=True))}
        self._sought = pa.array(sorted({key[-1] for key in self._places}), pa.string())
        self._found = {file.file_path: hits for file in files if (hits := self._hits(file.file_path))}
        self._old: list[Any] = []
        self._order: list[int] = []
        self.files = [file for file in files if file.file_path in self._found]

    def stays(self, name: str, first: int, batch: Any) -> Any:
        """Which rows of a file stay, as a ``Mask``; the others are taken up."""
        hits = self._found[name]
        inside = [row for row in range(first, first + batch.num_rows) if row in hits]
        if not inside:
            return None
        self._old.append(batch.take(pa.array([row - first for row in inside])))
        self._order += [hits[row] for row in inside]
        return without(hits, first, batch.num_rows)

    def rows(self) -> Any:
        """The rows, merged with those that were taken up."""
        if not self._old:
            return self._rows
        before = pa.concat_tables([pa.Table.from_batches([batch]) for batch in self._old], promote_options="default")
        places: list[int | None] = [None] * self._rows.num_rows
        for row, place in enumerate(self._order):
            places[place] = row
        return _merged(self._rows, before.take(pa.array(places, pa.int64())), self._keys)

    def _hits(self, name: str) -> dict[int, int]:
        """Rows of a file that have one of the keys, with the place of the row that they are merged with."""
        hits: dict[int, int] = {}
        for first, batch in batches(self._storage, name, self._keys):
            candidates = pc.indices_nonzero(pc.is_in(batch.column(self._keys[-1]), self._sought))
            if not len(candidates):
                continue
            columns = (batch.column(key).take(candidates).to_pylist() for key in self._keys)
            for row, key in zip(candidates.to_pylist(), zip(*columns, strict=True), strict=True):
                if key in self._places:
                    hits[first + row] = self._places[key]
        return hits


def _merged(rows: Any, before: Any, keys: Sequence[str]) -> Any:
    """Row by row, the one with the one that was there before; NULL where there was none."""
    newer = pa.repeat(False, rows.num_rows)
    if _TIME in before.column_names:
        newer = pc.fill_null(pc.greater_equal(rows.column(_TIME), before.column(_TIME).combine_chunks()), False)
    merged: dict[str, Any] = {}
    for name in dict.fromkeys([*rows.schema.names, *before.column_names]):
        if name not in rows.schema.names:
            merged[name] = before.column(name).combine_chunks()
            continue
        column = rows.column(name)
        value = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if name not in keys and name in before.column_names:
            old = before.column(name).combine_chunks()
            value = value.cast(old.type)
            value = pc.if_else(newer, pc.coalesce(value, old), pc.coalesce(old, value))
        merged[name] = value
    return pa.RecordBatch.from_pydict({name: _plain(column) for name, column in merged.items()})


def _plain(column: Any) -> Any:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
