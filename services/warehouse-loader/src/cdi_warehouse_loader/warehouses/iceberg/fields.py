"""Columns as Iceberg and Parquet have them: each has a number for good, by which it is found in every file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import BooleanType, DoubleType, IcebergType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from cdi_warehouse_loader.domain.columns import ARROW, ColumnType

RECEIVED_AT: Final = "received_at"
SOURCE_ID: Final = "source_id"
FIELD_ID: Final = b"PARQUET:field_id"
_FIRST_PARTITION_FIELD: Final = 1_000

_TYPES: Final[Mapping[ColumnType, IcebergType]] = {
    ColumnType.BOOLEAN: BooleanType(),
    ColumnType.INTEGER: IntegerType(),
    ColumnType.BIGINT: LongType(),
    ColumnType.DOUBLE: DoubleType(),
    ColumnType.TIMESTAMP: TimestamptzType(),
    ColumnType.TEXT: StringType(),
}
_KINDS: Final = {kind: column for column, kind in _TYPES.items()}

Columns = Mapping[str, ColumnType]


def schema_of(columns: Columns) -> Schema:
    """The schema of a new table."""
    return Schema(*(_field(number, name, kind) for number, (name, kind) in enumerate(columns.items(), 1)), schema_id=0)


def changed(schema: Schema, added: Columns, widened: Iterable[str], last_id: int) -> Schema:
    """A schema with more columns, and integer columns that become double.

    Iceberg makes no double of an integer, so such a column is a new one of the old name, and files that hold the old one are written anew.

    Args:
        schema: the schema so far.
        added: new columns.
        widened: columns that become double.
        last_id: the highest number that a column of the table ever had.
    """
    fields = {field.name: field for field in schema.fields}
    news = {**dict.fromkeys(widened, ColumnType.DOUBLE), **{name: kind for name, kind in added.items() if name not in fields}}
    fields |= {name: _field(last_id + place, name, kind) for place, (name, kind) in enumerate(news.items(), 1)}
    return Schema(*fields.values(), schema_id=schema.schema_id + 1)


def columns_of(schema: Schema) -> dict[str, ColumnType]:
    """The columns of a table; a type that others have given it is text to us."""
    return {field.name: _KINDS.get(field.field_type, ColumnType.TEXT) for field in schema.fields}


def arrow_field(schema: Schema, name: str) -> Any:
    """A column as Parquet files have it."""
    field = schema.find_field(name)
    return pa.field(name, ARROW[_KINDS[field.field_type]], metadata={FIELD_ID: str(field.field_id).encode()})


def by_day(schema: Schema) -> PartitionSpec:
    """Partitions by the day when events were received."""
    return PartitionSpec(_day(schema))


def by_day_and_source(schema: Schema) -> PartitionSpec:
    """Partitions by that day and the source of the events."""
    source = schema.find_field(SOURCE_ID).field_id
    return PartitionSpec(_day(schema), PartitionField(source, _FIRST_PARTITION_FIELD + 1, IdentityTransform(), SOURCE_ID))


def _day(schema: Schema) -> PartitionField:
    received_at = schema.find_field(RECEIVED_AT).field_id
    return PartitionField(received_at, _FIRST_PARTITION_FIELD, DayTransform(), f"{RECEIVED_AT}_day")


def _field(number: int, name: str, kind: ColumnType) -> NestedField:
    return NestedField(number, name, _TYPES[kind], required=False)
