"""Rows by key, as in ``users``: newer ones bring their values, older ones only fill what is empty.

Files are copied without the rows that are merged. Only those in which there are such rows: they are found by reading the keys of all files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from cdi_warehouse_loader.warehouses.iceberg.files import Mask, batches, without
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage

_TIME = "timestamp"


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge leads to.

    Attributes:
        rows: new and merged rows.
        files: in which there are rows that are merged.
        mask: the rows of these files that stay.
    """

    rows: Any
    files: Sequence[DataFile]
    mask: Mask


def merged(storage: Storage, files: Sequence[DataFile], rows: Any, keys: Sequence[str]) -> Merged:
    """Merges rows with those of the files.

    Args:
        storage: where.
        files: of the table.
        rows: at most one per key.
        keys: columns.
    """
    places = {key: place for place, key in enumerate(zip(*(rows.column(key).to_pylist() for key in keys), strict=True))}
    sought = pa.array(sorted({key[-1] for key in places}), pa.string())
    found: dict[str, dict[int, int]] = {}
    for file in files:
        if hits := _hits(storage, file.file_path, keys, sought, places):
            found[file.file_path] = hits
    old = [_taken(storage, name, hits) for name, hits in found.items()]

    def stays(name: str, first: int, batch: Any) -> Any:
        return without(found[name], first, batch.num_rows)

    if not old:
        return Merged(rows, (), stays)
    before = pa.concat_tables(old, promote_options="default")
    order = [-1] * rows.num_rows
    for row, place in enumerate(place for hits in found.values() for place in hits.values()):
        order[place] = row
    indices = pa.array([None if row < 0 else row for row in order], pa.int64())
    return Merged(_merge(rows, before.take(indices), keys), [file for file in files if file.file_path in found], stays)


def _hits(storage: Storage, name: str, keys: Sequence[str], sought: Any, places: dict[tuple[Any, ...], int]) -> dict[int, int]:
    """Rows of a file that have one of the keys, with the place of the row that they are merged with."""
    hits: dict[int, int] = {}
    for first, batch in batches(storage, name, keys):
        candidates = pc.indices_nonzero(pc.is_in(batch.column(keys[-1]), sought))
        if not len(candidates):
            continue
        columns = (batch.column(key).take(candidates).to_pylist() for key in keys)
        for row, key in zip(candidates.to_pylist(), zip(*columns, strict=True), strict=True):
            if key in places:
                hits[first + row] = places[key]
    return hits


def _taken(storage: Storage, name: str, hits: dict[int, int]) -> Any:
    """The rows of a file that are merged, in their order."""
    pieces = []
    for first, batch in batches(storage, name):
        if inside := [row - first for row in hits if first <= row < first + batch.num_rows]:
            pieces.append(batch.take(pa.array(inside)))
    return pa.Table.from_batches(pieces)


def _merge(rows: Any, before: Any, keys: Sequence[str]) -> Any:
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
