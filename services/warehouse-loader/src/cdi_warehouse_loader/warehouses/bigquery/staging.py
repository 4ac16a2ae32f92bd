"""The rows of a load on their way: one Parquet file, one load job, one table, however many tables the load touches.

A staged table has a number for the table that a row is for, and columns of no meaning: ``s0``, ``s1`` for texts, ``i0`` for integers and so
on, of each type as many as the table with the most of them has. What they mean is known to the statements that move the rows on.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.warehouses.bigquery.connection import STAGING, Connection, Refused
from cdi_warehouse_loader.warehouses.bigquery.sql import column_of, place, quoted

_NUMBER: Final = "place"
_TIME: Final = pa.timestamp("us", "UTC")
_LETTERS: Final[Mapping[Any, tuple[str, str]]] = {
    pa.bool_(): ("b", "BOOL"),
    pa.int32(): ("i", "INT64"),
    pa.int64(): ("i", "INT64"),
    pa.float64(): ("f", "FLOAT64"),
    _TIME: ("t", "TIMESTAMP"),
    pa.string(): ("s", "STRING"),
}
_ARROW: Final = {"b": pa.bool_(), "i": pa.int64(), "f": pa.float64(), "t": _TIME, "s": pa.string()}
_SPELLED: Final = dict(_LETTERS.values())


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows of one table of a load, in the staged table.

    Attributes:
        source: a query of them; its columns are called as in their table.
        columns: these names, as the loader knows them.
    """

    source: str
    columns: Sequence[str]


@contextlib.contextmanager
def staged(connection: Connection, batches: Sequence[Any]) -> Iterator[Sequence[Staged | None]]:
    """Brings record batches to BigQuery for the time of a block.

    Args:
        connection: to use.
        batches: each for a table; ``None``, or one without rows: nothing.

    Yields:
        How the rows of each are found, in the order of the batches.

    Raises:
        Refused: BigQuery does not take a value.
        Unavailable: it cannot now.
    """
    if not any(batch is not None and batch.num_rows for batch in batches):
        yield [None] * len(batches)
        return
    table = f"rows_{uuid4().hex}"
    file = io.BytesIO()
    meanings, width = _named(batches)
    _write(file, batches, meanings, width)
    file.seek(0)
    connection.load(table, file, {_NUMBER: "INT64", **{name: _SPELLED[name[0]] for name in width}})
    try:
        yield [_source(table, number, meaning) if meaning else None for number, meaning in enumerate(meanings)]
    finally:
        forget(connection, table)


def forget(connection: Connection, table: str) -> None:
    """Removes a staged table; if that fails it goes by itself after a day."""
    with contextlib.suppress(Refused, Unavailable):
        connection.drop_staged(table)


def _named(batches: Sequence[Any]) -> tuple[list[dict[str, str]], list[str]]:
    """What stands for each column of each batch, and all columns of the staged table."""
    meanings: list[dict[str, str]] = []
    width: dict[str, int] = {}
    for batch in batches:
        used: dict[str, int] = {}
        meaning: dict[str, str] = {}
        for field in batch.schema if batch is not None and batch.num_rows else ():
            letter, _ = _LETTERS[_plain(field.type)]
            meaning[field.name] = f"{letter}{used.get(letter, 0)}"
            used[letter] = used.get(letter, 0) + 1
        for letter, number in used.items():
            width[letter] = max(width.get(letter, 0), number)
        meanings.append(meaning)
    return meanings, [f"{letter}{number}" for letter in sorted(width) for number in range(width[letter])]


def _write(file: Any, batches: Sequence[Any], meanings: Sequence[Mapping[str, str]], width: Sequence[str]) -> None:
    schema = pa.schema([(_NUMBER, pa.int64()), *((name, _ARROW[name[0]]) for name in width)])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for number, (batch, meaning) in enumerate(zip(batches, meanings, strict=True)):
            if not meaning:
                continue
            columns = {meaning[name]: column for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            arrays = [pa.array([number] * batch.num_rows, pa.int64())]
            for name in width:
                column, kind = columns.get(name), _ARROW[name[0]]
                arrays.append(pa.nulls(batch.num_rows, kind) if column is None else _decoded(column).cast(kind))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _source(table: str, number: int, meaning: Mapping[str, str]) -> Staged:
    named = ", ".join(f"{quoted(stands)} AS {column_of(name)}" for name, stands in meaning.items())
    return Staged(f"SELECT {named} FROM {place(STAGING, table)} WHERE `{_NUMBER}` = {number}", list(meaning))


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def checked(load: TableLoad, known: Mapping[str, Any]) -> TableLoad:
    """A table's rows, of which every column is known or new.

    Raises:
        ValueError: one is not.
    """
    unknown = [] if load.rows is None else [name for name in load.rows.schema.names if name not in known and name not in load.added]
    if unknown:
        raise ValueError(f"{load.schema}.{load.table} has no column {', '.join(unknown)}")
    return load
