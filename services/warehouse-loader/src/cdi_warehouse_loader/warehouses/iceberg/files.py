"""Data files: writing rows into new ones, and copying what is in some of them, as a whole or without some rows.

Bounds are kept of times and sequences only: what else is in a column is in no other file of the table than the data file itself.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, Transform
from pyiceberg.typedef import Record

from cdi_warehouse_loader.warehouses.iceberg.fields import FIELD_ID, RECEIVED_AT, arrow_field
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage

READ_ROWS: Final = 16_384
"""Rows of a file that are in memory at a time."""

_GROUP_ROWS: Final = 65_536
_GROUP_BYTES: Final = 16 * 1024 * 1024
"""Rows, or bytes of them in memory, that are written together."""

_BOUNDED: Final = frozenset({RECEIVED_AT, "timestamp", "event_seq"})
"""Columns of CDI's own wherever they are: no property has one of these names."""

PartitionValues = tuple[int | str | None, ...]
Mask = Callable[[str, int, Any], Any]
"""Which rows of a batch stay, by name of the file and number of its first row; ``None``: all."""


class FileWriter:
    """A new data file.

    Args:
        storage: where.
        location: of the table.
        schema: of the table.
        names: columns that the file has; others are NULL in it.
        partition: values of the partition, none for a table without partitions.
    """

    def __init__(self, storage: Storage, location: str, schema: Schema, names: Sequence[str], partition: PartitionValues) -> None:
        self.name = f"{location}/data/{uuid.uuid4()}.parquet"
        self._storage = storage
        self._schema = schema
        self._arrow = pa.schema([arrow_field(schema, name) for name in names])
        self._partition = partition
        self._bounds: dict[str, tuple[int, int]] = {}
        self.rows = 0
        self._pending: list[Any] = []
        self._pending_bytes = 0
        self._stream = storage.io.new_output(self.name).create(overwrite=True)
        bounded = [name for name in names if name in _BOUNDED]
        self._writer = pq.ParquetWriter(
            self._stream, self._arrow, compression="zstd", compression_level=1, write_statistics=bounded or False, store_schema=False
        )

    def add(self, rows: Any) -> None:
        """Appends rows, if there are any; columns that they lack are NULL.

        Raises:
            pa.ArrowInvalid: a value does not fit its column.
        """
        if not rows.num_rows:
            return
        present = set(rows.schema.names)
        arrays = [_fitted(rows, field, field.name in present) for field in self._arrow]
        table = pa.Table.from_arrays(arrays, schema=self._arrow)
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        self.rows += table.num_rows
        if self._pending_bytes >= _GROUP_BYTES or sum(one.num_rows for one in self._pending) >= _GROUP_ROWS:
            self._write_pending()
        for name in _BOUNDED & present:
            self._widen(name, pc.min_max(table.column(name).cast(pa.int64())).as_py())

    def close(self) -> DataFile:
        """Ends the file."""
        self._write_pending()
        self._writer.close()
        size = self._stream.tell()
        self._stream.close()
        ids = {name: self._schema.find_field(name).field_id for name in self._bounds}
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.name,
            file_format=FileFormat.PARQUET,
            partition=Record(*self._partition),
            record_count=self.rows,
            file_size_in_bytes=size,
            lower_bounds={ids[name]: struct.pack("<q", low) for name, (low, _) in self._bounds.items()},
            upper_bounds={ids[name]: struct.pack("<q", high) for name, (_, high) in self._bounds.items()},
        )

    def abandon(self) -> None:
        """Ends a file that nobody needs."""
        self._writer.close()
        self._stream.close()
        self._storage.delete([self.name])

    def _write_pending(self) -> None:
        if self._pending:
            self._writer.write_table(pa.concat_tables(self._pending), row_group_size=_GROUP_ROWS)
        self._pending, self._pending_bytes = [], 0

    def _widen(self, name: str, found: dict[str, int | None]) -> None:
        low, high = found["min"], found["max"]
        if low is not None and high is not None:
            before = self._bounds.get(name, (low, high))
            self._bounds[name] = (min(before[0], low), max(before[1], high))


def split(rows: Any, schema: Schema, spec: PartitionSpec) -> Iterator[tuple[PartitionValues, Any]]:
    """Rows by the values of the partition that they belong to.

    Args:
        rows: columns that are left out are NULL.
        schema: of the table.
        spec: its partitions: by a column, or by the day of one.
    """
    if not spec.fields:
        yield (), rows
        return
    keys = pa.table({field.name: _key(rows, schema.find_field(field.source_id).name, field.transform) for field in spec.fields})
    distinct = keys.group_by(keys.schema.names).aggregate([])
    for values in zip(*(column.to_pylist() for column in distinct.columns), strict=True):
        if distinct.num_rows == 1:
            yield values, rows
        else:
            masks = [pc.is_null(key) if one is None else pc.equal(key, one) for key, one in zip(keys.columns, values, strict=True)]
            yield values, rows.filter(reduce(pc.and_, (pc.fill_null(mask, False) for mask in masks)).combine_chunks())


def _key(rows: Any, column: str, transform: Transform[Any, Any]) -> Any:
    kind = pa.int32() if isinstance(transform, DayTransform) else pa.string()
    if column not in rows.schema.names:
        return pa.nulls(rows.num_rows, kind)
    values = rows.column(column)
    return values.cast(pa.date32()).cast(kind) if isinstance(transform, DayTransform) else values.cast(kind)


def partition_of(file: DataFile) -> PartitionValues:
    """The values of the partition of a file."""
    return tuple(file.partition[place] for place in range(len(file.partition)))


def filled(rows: Any) -> list[str]:
    """The columns of rows in which there is a value; the first one, if there is none."""
    names = [name for name, column in zip(rows.schema.names, rows.columns, strict=True) if column.null_count < len(column)]
    return names or rows.schema.names[:1]


def batches(storage: Storage, name: str, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
    """The rows of a file in pieces, each with the number of its first row; columns that the file does not have are left out."""
    with storage.read(name) as stream:
        file = pq.ParquetFile(stream)
        has = file.schema_arrow.names
        yield from _pieces(file, None if columns is None else [one for one in columns if one in has])


def field_ids(storage: Storage, name: str) -> set[int]:
    """The numbers of the columns that a file has."""
    with storage.read(name) as stream:
        return {int(field.metadata[FIELD_ID]) for field in pq.read_schema(stream)}


def copy(storage: Storage, location: str, schema: Schema, sources: Sequence[DataFile], mask: Mask | None = None) -> DataFile | None:
    """Files of one partition as a single new one, with the schema that the table has now.

    Args:
        storage: where.
        location: of the table.
        schema: of the table.
        sources: the files.
        mask: which rows stay.

    Returns:
        ``None`` when no row stays.
    """
    with contextlib.ExitStack() as stack:
        opened = {source.file_path: pq.ParquetFile(stack.enter_context(storage.read(source.file_path))) for source in sources}
        present = {name for file in opened.values() for name in file.schema_arrow.names}
        names = [field.name for field in schema.fields if field.name in present]
        writer = FileWriter(storage, location, schema, names, partition_of(sources[0]))
        try:
            for name, file in opened.items():
                for first, batch in _pieces(file, None):
                    kept = mask(name, first, batch) if mask is not None else None
                    writer.add(batch if kept is None else batch.filter(kept))
        except BaseException:
            writer.abandon()
            raise
        if writer.rows:
            return writer.close()
        writer.abandon()
        return None


def _pieces(file: Any, columns: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    first = 0
    for batch in file.iter_batches(READ_ROWS, columns=columns):
        yield first, batch
        first += batch.num_rows


def without(rows: Container[int], first: int, count: int) -> Any:
    """A mask of so many rows from the first one on that leaves out some, by number."""
    return pa.array([row not in rows for row in range(first, first + count)])


def _fitted(rows: Any, field: Any, is_there: bool) -> Any:
    if not is_there:
        return pa.nulls(rows.num_rows, field.type)
    column = rows.column(field.name)
    if column.type == field.type:
        return column
    # An integer column that became double: beyond 2^53 the nearest one that there is.
    return column.cast(field.type, safe=not (pa.types.is_int64(column.type) and pa.types.is_float64(field.type)))
