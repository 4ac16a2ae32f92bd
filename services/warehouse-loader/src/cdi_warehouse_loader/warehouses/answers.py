"""Answers of queries, the same for all engines: values as JSON, Arrow batches within limits, and what a refusal says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import InvalidArgument, TooLarge
from cdi_warehouse_loader.ports import QueryLimits

STREAMED_ROWS: Final = 2_000
"""Rows in a batch that is handed over."""

_EXACT_INTEGER: Final = 2**53


def hand_over(batches: Any, limits: QueryLimits, take: Callable[[Any], None]) -> bool:
    """Hands over Arrow record batches as far as the limits allow; see ``ports.Warehouse.stream``.

    Args:
        batches: a ``pyarrow.RecordBatchReader``.
        limits: rows and bytes.
        take: gets them.

    Returns:
        Whether there were more rows than allowed.

    Raises:
        TooLarge: more bytes than allowed.
    """
    rows, size, handed = 0, 0, False
    for batch in batches:
        size += batch.nbytes
        if size > limits.size:
            raise over("bytes", limits.size)
        take(batch.slice(0, limits.rows - rows))
        handed = True
        rows += batch.num_rows
        if rows > limits.rows:
            return True
    if not handed:
        take(pa.RecordBatch.from_pylist([], schema=batches.schema))
    return False


def rows_within(rows: Iterable[Sequence[Any]], limits: QueryLimits) -> tuple[list[list[Any]], bool]:
    """Rows as JSON has them as far as the limits allow, and whether there were more.

    Raises:
        TooLarge: more bytes than allowed.
    """
    values: list[list[Any]] = []
    size = 0
    for row in rows:
        if len(values) >= limits.rows:
            return values, True
        shown = [json_value(value) for value in row]
        size += sum(map(_size_of, shown))
        if size > limits.size:
            raise over("bytes", limits.size)
        values.append(shown)
    return values, False


def json_value(value: Any) -> Any:
    """A value as JSON has it; what JSON cannot say exactly is text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _size_of(value: object) -> int:
    return len(value) + 8 if isinstance(value, str) else 8


def refused(message: str) -> InvalidArgument:
    """A statement that cannot be run."""
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_QUERY_REFUSED)


def over(limit: str, allowed: float) -> TooLarge:
    """A statement that costs more than allowed."""
    return TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, f"the query is over its limit of {allowed:g} {limit}", metadata={"limit": limit})
