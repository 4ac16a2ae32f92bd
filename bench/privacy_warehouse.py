"""Erasing people from a DuckDB file with ten million events, and writing the file anew. ``python -m bench.privacy_warehouse``

Times the loader's own adapter with its own settings (48 MB, one thread): one person with 1,000 events spread over the whole table, then
1,000 people in one pass, then the copy without them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time

import duckdb

from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Erasure, PersonId
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb.file import rewrite
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse, open_warehouse

EVENTS = int(os.environ.get("BENCH_EVENTS", "10000000"))
PEOPLE = EVENTS // 1_000
"""Each has 1,000 events."""

CHUNK = 1_000_000
WORKSPACE = "bench"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        options = Options(f"duckdb:{directory}/warehouse.duckdb")
        fill(options)
        warehouse = open_warehouse(options)
        print(f"{EVENTS:,} events of {PEOPLE:,} people, file of {options.path.stat().st_size / 1e6:,.0f} MB")
        timed("one person", warehouse, [0])
        timed("1,000 people", warehouse, list(range(1, min(1_001, PEOPLE))))
        warehouse.close()
        started = time.perf_counter()
        rewrite(options)
        print(f"file written anew: {time.perf_counter() - started:.1f} s, {options.path.stat().st_size / 1e6:,.0f} MB")


def fill(options: Options) -> None:
    """Rows of ``tracks`` as the loader writes them, people in turn, with the columns that erasing looks at and a payload."""
    warehouse = open_warehouse(options)
    warehouse.ensure_tables("main")
    warehouse.close()
    connection = duckdb.connect(str(options.path), config={"threads": 2, "memory_limit": "1GB"})
    for start in range(0, EVENTS, CHUNK):
        connection.execute(
            f"""insert into tracks by name select 'm' || i as id, '{WORKSPACE}' as workspace_id, 'u' || i % {PEOPLE} as user_id,
                'a' || i % {PEOPLE} as anonymous_id, md5((i % {PEOPLE})::varchar) as profile_id, 'Seen' as event, i as event_seq,
                timestamptz '2026-01-01' + to_seconds(i) as received_at, 'https://shop.example/p/' || hash(i) as event_text
            from range({start}, {min(start + CHUNK, EVENTS)}) r(i)"""
        )
    connection.execute("checkpoint")
    connection.close()


def timed(name: str, warehouse: DuckDbWarehouse, people: list[int]) -> None:
    now_us = time.time_ns() // 1_000
    erasures = [
        Erasure(
            [
                PersonId(WORKSPACE, "user_id", f"u{one}"),
                PersonId(WORKSPACE, "anonymous_id", f"a{one}"),
                PersonId(WORKSPACE, PROFILE_ID, hashlib.md5(str(one).encode()).hexdigest()),
            ],
            now_us,
        )
        for one in people
    ]
    started = time.perf_counter()
    rows, passes, more = 0, 0, True
    while more:
        erased = warehouse.erase(erasures, now_us)
        rows += sum(each.get("main.tracks", 0) for each in erased.counts)
        passes, more = passes + 1, erased.more
    seconds = time.perf_counter() - started
    print(f"{name}: {rows:,} rows erased in {seconds:.2f} s, passes between which loads go on: {passes}")


if __name__ == "__main__":
    main()
