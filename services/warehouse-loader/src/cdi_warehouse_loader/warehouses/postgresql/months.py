"""Partitions of ``tracks``: one per month of ``received_at``, and one for all other rows.

The load that brings a month's first rows makes its partition. Rows of that month that lie in the other partition already, because the
month was out of bounds when they came, move into it in the same transaction. Partitions lie in the loader's own schema, where no event's
table can have their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.warehouses.postgresql.sql import literal, place, quoted

OWN_SCHEMA: Final = "_cdi"
_BEFORE, _AFTER = 60, 1
"""Months before and after the present one that get partitions, so that wrong clocks do not make thousands of them."""


def default_partition(schema: str, number: int) -> str:
    """The partition of all rows that have no other one."""
    return f"create table {_partition(number, 'others')} partition of {place(schema, naming.TRACKS)} default"


def months_in(rows: Any, now: datetime) -> set[str]:
    """The months (``2026-01``) in which rows of a batch were received, as far as they may have partitions."""
    if "received_at" not in rows.schema.names:
        return set()
    floors = pc.unique(pc.floor_temporal(rows.column("received_at").cast(pa.timestamp("us")), unit="month")).to_pylist()
    this = _ordinal(now)
    return {f"{at:%Y-%m}" for at in floors if at is not None and this - _BEFORE <= _ordinal(at) <= this + _AFTER}


def add_month(schema: str, number: int, month: str, columns: Iterable[str]) -> Iterator[str]:
    """Statements that make the partition of a month."""
    partition, others, tracks = _partition(number, month), _partition(number, "others"), place(schema, naming.TRACKS)
    low, high = (literal(f"{bound}-01 00:00:00+00") for bound in (month, _next(month)))
    listed = ", ".join(map(quoted, columns))
    yield f"create table {partition} (like {tracks})"
    yield f"""with moved as (delete from {others} where received_at >= {low} and received_at < {high} returning *)
        insert into {partition} ({listed}) select {listed} from moved"""
    yield f"alter table {tracks} attach partition {partition} for values from ({low}) to ({high})"
    yield f"insert into _cdi.months values ({literal(schema)}, {literal(month)})"


def _partition(number: int, name: str) -> str:
    return place(OWN_SCHEMA, f"tracks_{number}_{name.replace('-', '_')}")


def _ordinal(at: datetime) -> int:
    return at.year * 12 + at.month


def _next(month: str) -> str:
    year, number = _numbers(month)
    return f"{year + number // 12}-{number % 12 + 1:02}"


def _numbers(month: str) -> Sequence[int]:
    return [int(part) for part in month.split("-")]
