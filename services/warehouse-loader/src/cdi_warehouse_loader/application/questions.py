"""What rebuilding asks of warehouses, in the SQL that all engines have; names and texts in it are written as each one writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.ports import QueryLimits, Question, Warehouse

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


async def ask(access: Access, statement: Callable[[Warehouse], str]) -> Any:
    """The answer as an Arrow table.

    Args:
        access: the warehouse.
        statement: what is asked, as it writes it.

    Raises:
        TooLarge: it is.
    """
    batches: list[Any] = []
    truncated = await access.read(lambda held: held.stream(Question(statement(held), _LIMITS), batches.append))
    if truncated:
        raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "too many rows in one window", metadata={"limit": "rows"})
    return pa.Table.from_batches(batches)


async def rows_of(access: Access, schema: str, table: str, workspace_id: str, within: str) -> Any:
    """A workspace's rows of a table, for which a condition holds, as an Arrow table; raises what ``ask`` does."""
    return await ask(access, lambda held: f"select * from {_of_workspace(held, schema, table, workspace_id)} and {within}")


async def tables_of(access: Access, schema: str) -> dict[str, Any]:
    """The tables of a schema, with their columns."""
    return dict(await access.write(lambda held: held.catalog.get(schema, {})))


async def span(access: Access, schema: str, table: str, column: str, workspace_id: str) -> Span:
    """What a table holds whose rows have their place in ``column``."""

    def statement(held: Warehouse) -> str:
        others = f"sum(case when workspace_id <> {held.literal(workspace_id)} then 1 else 0 end)"
        return f"select min({column}) as oldest, {others} as strangers from {held.place(schema, table)}"

    first, strangers = await _first_row(access, statement)
    return Span(NEVER if first is None else int(first), int(strangers or 0))


async def oldest(access: Access, schema: str, table: str, column: str, workspace_id: str) -> int:
    """The lowest place of a workspace's rows; ``NEVER`` if there is none, or no such table."""
    if table not in await tables_of(access, schema):
        return NEVER
    (found,) = await _first_row(
        access, lambda held: f"select min({column}) as oldest from {_of_workspace(held, schema, table, workspace_id)}"
    )
    return NEVER if found is None else int(found)


async def times(access: Access, schema: str, table: str, column: str, workspace_id: str) -> tuple[int, int]:
    """From when to when a workspace's rows are, microseconds since 1970; ``NEVER`` and 0 if there is none with a time."""
    chosen = f"min({column}) as oldest, max({column}) as newest"
    first, last = await _first_row(access, lambda held: f"select {chosen} from {_of_workspace(held, schema, table, workspace_id)}")
    return (NEVER, 0) if first is None else ((first - _EPOCH) // _MICROSECOND, (last - _EPOCH) // _MICROSECOND)


def instant(us: int) -> str:
    """A time in a statement: a text that every engine compares with a column of times as one in UTC."""
    return (_EPOCH + us * _MICROSECOND).strftime("'%Y-%m-%d %H:%M:%S.%f'")


def _of_workspace(held: Warehouse, schema: str, table: str, workspace_id: str) -> str:
    return f"{held.place(schema, table)} where workspace_id = {held.literal(workspace_id)}"


async def _first_row(access: Access, statement: Callable[[Warehouse], str]) -> tuple[Any, ...]:
    (row,) = (await ask(access, statement)).to_pylist()
    return tuple(row.values())
