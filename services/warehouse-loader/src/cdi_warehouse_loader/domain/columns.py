"""Column types, and fitting values that a client sent into them.

Rules: the first value fixes a new column's type; an integer column that meets a fraction widens to double; a text column takes anything
as text; a value that does not fit leaves NULL and is returned as a misfit. Never raises for a value that JSON can hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Any, Final

import msgspec
import pyarrow as pa

from cdi_kernel.clock import parse_instant


class ColumnType(StrEnum):
    """The types that a column can have; the value is how SQL spells it."""

    BOOLEAN = "BOOLEAN"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    TIMESTAMP = "TIMESTAMP WITH TIME ZONE"
    TEXT = "VARCHAR"


ARROW: Final[dict[ColumnType, Any]] = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    ColumnType.TEXT: pa.string(),
}

TYPE_CONFLICT: Final = "type_conflict"
OUT_OF_RANGE: Final = "out_of_range"
NAME_COLLISION: Final = "name_collision"
TOO_MANY_COLUMNS: Final = "too_many_columns"
SCHEMA_FROZEN: Final = "schema_frozen"

_MIN_INT64: Final = -(2**63)
_MAX_INT64: Final = 2**63 - 1
_EXACT_IN_DOUBLE: Final = 2**53
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that its column cannot hold.

    Attributes:
        row: its position in the column.
        value: as text.
        reason: ``type_conflict``, ``out_of_range`` or ``name_collision``.
    """

    row: int
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A column ready to load.

    Attributes:
        values: as Arrow takes them, ``None`` where a value did not fit.
        type: the column's type from now on.
        misfits: what did not fit.
    """

    values: Sequence[Any]
    type: ColumnType
    misfits: Sequence[Misfit]

    @property
    def array(self) -> Any:
        """The values as an Arrow array."""
        return pa.array(self.values, ARROW[self.type])


def fit(values: list[Any], known: ColumnType | None, *, frozen: bool = False) -> Fitted | None:
    """Brings decoded JSON values (no objects) into one column.

    Args:
        values: one per row; ``None`` is no value.
        known: the column's type so far, ``None`` for a new column.
        frozen: the column keeps its type.

    Returns:
        ``None`` for a new column without a value.
    """
    kinds = set(map(type, values))
    kinds.discard(NoneType)
    if list in kinds:
        values = [json_text(value) if type(value) is list else value for value in values]
        kinds = kinds - {list} | {str}
    if not kinds:
        return None if known is None else Fitted(values, known, ())
    target = known or _first_type(values, kinds)
    if target is ColumnType.BIGINT and float in kinds and not frozen:
        target = ColumnType.DOUBLE
    return Fitted(values, target, ()) if _fits(values, kinds, target) else _careful(values, target)


def record_batch(types: Mapping[str, ColumnType], columns: Sequence[Sequence[Any]]) -> Any:
    """An Arrow record batch of a table whose columns are known.

    Args:
        types: the table's columns.
        columns: their values in the same order, as Arrow takes them; times in microseconds since 1970.
    """
    arrays = [
        pa.array(values, pa.int64()).cast(ARROW[kind]) if kind is ColumnType.TIMESTAMP else pa.array(values, ARROW[kind])
        for kind, values in zip(types.values(), columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, list(types))


def json_text(value: object) -> str:
    """A decoded JSON value as compact JSON."""
    return _encode(value).decode()


def text(value: object) -> str:
    """A scalar, or a list, as a text column holds it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_text(value) if isinstance(value, list | dict) else str(value)


def _first_type(values: Sequence[Any], kinds: set[type]) -> ColumnType:
    if kinds == {str}:
        given = (value for value in values if value is not None)
        return ColumnType.TIMESTAMP if all(map(_INSTANT.fullmatch, given)) else ColumnType.TEXT
    first = next(value for value in values if value is not None)
    if type(first) is bool:
        return ColumnType.BOOLEAN
    if type(first) is float:
        return ColumnType.DOUBLE
    return ColumnType.BIGINT if type(first) is int and _MIN_INT64 <= first <= _MAX_INT64 else ColumnType.TEXT


_FITTING_KINDS: Final[dict[ColumnType, frozenset[type]]] = {
    ColumnType.TEXT: frozenset({str}),
    ColumnType.BIGINT: frozenset({int}),
    ColumnType.DOUBLE: frozenset({float, int}),
    ColumnType.BOOLEAN: frozenset({bool}),
}


def _fits(values: list[Any], kinds: set[type], target: ColumnType) -> bool:
    """Whether the values are what Arrow takes for this type; if not, each needs a closer look."""
    if not kinds <= _FITTING_KINDS.get(target, frozenset()):
        return False
    if int in kinds:
        numbers = [value for value in values if type(value) is int]
        low, high = (_MIN_INT64, _MAX_INT64) if target is ColumnType.BIGINT else (-_EXACT_IN_DOUBLE, _EXACT_IN_DOUBLE)
        return low <= min(numbers) and max(numbers) <= high
    return True


def _careful(values: Sequence[Any], target: ColumnType) -> Fitted:
    cast = _CASTS[target]
    kept: list[Any] = []
    misfits: list[Misfit] = []
    for row, value in enumerate(values):
        if value is None:
            kept.append(None)
            continue
        try:
            kept.append(cast(value))
        except (ValueError, OverflowError) as error:
            kept.append(None)
            misfits.append(Misfit(row, text(value), OUT_OF_RANGE if isinstance(error, OverflowError) else TYPE_CONFLICT))
    return Fitted(kept, target, misfits)


def _to_bigint(value: object) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        raise ValueError
    if not _MIN_INT64 <= value <= _MAX_INT64:
        raise OverflowError
    return value


def _to_double(value: object) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) is not int and type(value) is not float:
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise OverflowError
    return number


def _to_boolean(value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if type(value) is not bool:
        raise ValueError
    return value


def _to_instant(value: object) -> int:
    instant = parse_instant(value) if isinstance(value, str) else None
    if instant is None:
        raise ValueError
    return instant


_CASTS: Final[dict[ColumnType, Callable[[Any], Any]]] = {
    ColumnType.BOOLEAN: _to_boolean,
    ColumnType.INTEGER: _to_bigint,
    ColumnType.BIGINT: _to_bigint,
    ColumnType.DOUBLE: _to_double,
    ColumnType.TIMESTAMP: _to_instant,
    ColumnType.TEXT: text,
}
