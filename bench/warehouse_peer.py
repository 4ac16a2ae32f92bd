"""dlt loading NDJSON: ``python bench/warehouse_peer.py duckdb|postgresql SOURCE URL FORMAT LAYOUT``. Says seconds, CPU and rows as JSON.
An empty FORMAT leaves it to dlt.

LAYOUT ``events`` is a table per event; ``tracks`` has one more row per event in ``tracks``, without its properties, as CDI loads it. Lists
of lists and the like do not occur. No pipeline state is kept between runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from resource import getrusage as resource_usage
from typing import Any

import dlt

PAGE = 5_000
"""Events at once, as dlt's own readers give them."""


def events(source: str, layout: str) -> Iterator[Any]:
    """The lines in pages, each for the tables of its events and, where the layout says so, for ``tracks``."""
    with open(source) as lines:
        while page := [json.loads(line) for line in islice(lines, PAGE)]:
            yield page
            if layout == "tracks":
                rows = [{name: value for name, value in event.items() if name != "properties"} for event in page]
                yield dlt.mark.with_table_name(rows, "tracks")


def main() -> None:
    """Loads once."""
    engine, source, url, file_format, layout = sys.argv[1:]
    made = dlt.destinations.duckdb(url.removeprefix("duckdb:///")) if engine == "duckdb" else dlt.destinations.postgres(url)
    pipeline = dlt.pipeline("peer", destination=made, dataset_name="loaded")
    source_events = dlt.resource(events(source, layout), name="events", table_name=lambda event: event["event"])
    started = time.perf_counter()
    pipeline.run(source_events, loader_file_format=file_format or None)
    seconds = time.perf_counter() - started
    used = sum(usage.ru_utime + usage.ru_stime for usage in map(resource_usage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
    print(json.dumps({"seconds": seconds, "cpu_seconds": used, "rows": rows_of(pipeline)}))


def rows_of(pipeline: Any) -> int:
    """Rows in all tables, as the database counts them."""
    with pipeline.sql_client() as client:
        tables = [table for table in pipeline.default_schema.data_table_names() if "__" not in table]
        return sum(client.execute_sql(f"select count(*) from {table}")[0][0] for table in tables)


if __name__ == "__main__":
    main()
