"""dlt loading NDJSON: ``python bench/warehouse_peer.py duckdb|postgresql SOURCE URL FORMAT``. Says seconds, CPU and rows as JSON. An
empty FORMAT leaves it to dlt.

A table per event, as CDI has it; lists of lists and the like do not occur. No pipeline state is kept between runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from resource import getrusage as resource_usage
from typing import Any

import dlt


def events(source: str) -> Iterator[Any]:
    """The lines, in pages as dlt's own readers give them."""
    page: list[Any] = []
    with open(source) as lines:
        for line in lines:
            page.append(json.loads(line))
            if len(page) == 5_000:
                yield page
                page = []
    yield page


def main() -> None:
    """Loads once."""
    engine, source, url, file_format = sys.argv[1:]
    made = dlt.destinations.duckdb(url.removeprefix("duckdb:///")) if engine == "duckdb" else dlt.destinations.postgres(url)
    pipeline = dlt.pipeline("peer", destination=made, dataset_name="loaded")
    source_events = dlt.resource(events(source), name="events", table_name=lambda event: event["event"])
    started = time.perf_counter()
    pipeline.run(source_events, loader_file_format=file_format or None)
    seconds = time.perf_counter() - started
    used = sum(usage.ru_utime + usage.ru_stime for usage in map(resource_usage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
    print(json.dumps({"seconds": seconds, "cpu_seconds": used, "rows": rows_of(pipeline)}))


def rows_of(pipeline: Any) -> int:
    """Rows in the tables of events, as the database counts them."""
    with pipeline.sql_client() as client:
        tables = [table for table in pipeline.default_schema.data_table_names() if "__" not in table]
        return sum(client.execute_sql(f"select count(*) from {table}")[0][0] for table in tables)


if __name__ == "__main__":
    main()
