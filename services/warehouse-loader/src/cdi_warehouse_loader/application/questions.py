"""What rebuilding asks of warehouses, in the SQL that all engines have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.ports import QueryLimits, Question

MOST_ROWS: Final = 20_000
"""Rows of an answer."""

NEVER: Final = 1 << 62
"""Above every message, change and time: the place of the first row of a table without rows."""

_LIMITS: Final = QueryLimits(MOST_ROWS, 128 * 1024 * 1024, 120.0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Span(NamedTuple):
    """What a table holds: the lowest value of its place, above all others if it is empty, and rows of other workspaces."""

    oldest: int
    strangers: int


async def ask(access: Access, sql: str) -> Any:
    """The answer as an Arrow table.

    Raises:
        TooLarge: it is.
    """
    batches: list[Any] = []
    truncated = await access.read(lambda held: held.stream(Question(sql, _LIMITS), batches.append))
    if truncated:
        raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "too many rows in one window", metadata={"limit": "rows"})
    return pa.Table.from_batches(batches)


async def tables_of(access: Access, schema: str) -> dict[str, Any]:
    """The tables of a schema, with their columns."""
    return dict(await access.write(lambda held: held.catalog.get(schema, {})))


async def span(access: Access, place: str, column: str, workspace_id: str) -> Span:
    """What a table holds whose rows have their place in ``column``."""
    others = f"sum(case when workspace_id <> {literal(workspace_id)} then 1 else 0 end)"
    oldest, strangers = await _first_row(access, f"select min({column}) as oldest, {others} as strangers from {place}")
    return Span(NEVER if oldest is None else int(oldest), int(strangers or 0))


async def oldest(access: Access, schema: str, table: str, column: str, workspace_id: str) -> int:
    """The lowest place of a workspace's rows; ``NEVER`` if there is none, or no such table."""
    if table not in await tables_of(access, schema):
        return NEVER
    (found,) = await _first_row(
        access, f"select min({column}) as oldest from {schema}.{table} where workspace_id = {literal(workspace_id)}"
    )
    return NEVER if found is None else int(found)


async def times(access: Access, schema: str, table: str, column: str, workspace_id: str) -> tuple[int, int]:
    """From when to when a workspace's rows are, microseconds since 1970; ``NEVER`` and 0 if there is none with a time."""
    sql = f"select min({column}) as oldest, max({column}) as newest from {schema}.{table} where workspace_id = {literal(workspace_id)}"
    first, last = await _first_row(access, sql)
    return (NEVER, 0) if first is None else ((first - _EPOCH) // _MICROSECOND, (last - _EPOCH) // _MICROSECOND)


def literal(text: str) -> str:
    """A text in a statement."""
    return "'" + text.replace("'", "''") + "'"


def instant(us: int) -> str:
    """A time in a statement: a text that every engine compares with a column of times as one in UTC."""
    return literal((_EPOCH + us * _MICROSECOND).strftime("%Y-%m-%d %H:%M:%S.%f"))


async def _first_row(access: Access, sql: str) -> tuple[Any, ...]:
    (row,) = (await ask(access, sql)).to_pylist()
    return tuple(row.values())
