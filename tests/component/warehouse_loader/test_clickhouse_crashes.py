"""A process that loads into ClickHouse under kill -9: each message once in each of its tables. Here the engine dies with the loader."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.load import START, StreamPartition
from cdi_warehouse_loader.ports import Warehouse

from .conftest import graph_changed
from .engines import LOADED, clickhouse, load, rows

pytest.importorskip("chdb", reason="no ClickHouse here: pip install 'cdi-warehouse-loader[clickhouse-test]' (half a gigabyte)")

KILLS = 8
AT = StreamPartition("ENRICHED", 0)


def loading(directory: Path) -> None:
    """Loads numbered messages for ever, from the stored position on."""
    warehouse = clickhouse(directory).open()
    while True:
        try:
            _load_next(warehouse)
            sys.stdout.write("loaded\n")
            sys.stdout.flush()
        except Unavailable:  # what the one before has left was taken away
            continue


def _load_next(warehouse: Warehouse) -> None:
    number = warehouse.positions.get(AT, START).sequence + 1
    load(
        warehouse,
        builders.track("Seen", message_id=f"t{number}", user_id=f"u{number % 7}", properties={"n": number, f"wide_{number % 9}": 1}),
        builders.identify(message_id=f"i{number}", user_id=f"u{number % 7}", traits={"last": number}),
    )


def test_killed_at_any_moment_it_has_each_message_once(tmp_path: Path) -> None:
    moments = random.Random(7)
    program = f"from pathlib import Path\nfrom {__name__} import loading\nloading(Path({str(tmp_path)!r}))"
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"loaded\n"
            time.sleep(moments.uniform(0.0, 0.7))  # the kill's moment is the input here, nothing is awaited by it
            child.kill()
    place = clickhouse(tmp_path)
    try:
        warehouse = place.open()
        for _ in range(2):
            try:
                _load_next(warehouse)
            except Unavailable:
                continue
            break
        number = warehouse.positions[AT].sequence
        assert number > KILLS
        for table in ("tracks", "seen", "identifies"):
            assert rows(warehouse, f"select count(), uniqExact(id), uniqExact(event_seq) from main.{table}") == [[number] * 3]
        assert rows(warehouse, "select sum(n) from main.seen") == [[number * (number + 1) // 2]]
        assert rows(warehouse, "select count(), max(last) from main.users") == [[7, number]]
        assert warehouse.counts() == {LOADED: 2 * number}
        assert sum(entry.events for entry in warehouse.loads(10_000)) == 2 * number
    finally:
        place.close()


async def test_a_loader_that_has_only_clickhouse_is_killed_and_goes_on(
    start_loader: Any, enrichment: Any, graph: Any, ask: Any, tmp_path: Path
) -> None:
    """The whole service: events and changes of the graph from the streams, questions over gRPC."""
    warehouses = json.dumps({"clicks": f"clickhouse+chdb://{tmp_path}/clickhouse"})
    loader = start_loader(CDI_DUCKDB_PATH="", CDI_WAREHOUSES=warehouses)
    await enrichment.publish([builders.track("Seen", message_id="a"), builders.track("Seen", message_id="b")])
    client = await ask(loader)
    await client.loaded(2)
    loader.kill()
    await enrichment.publish([builders.track("Seen", message_id="b"), builders.track("Seen", message_id="c")], source=enrichment.sequence)
    await enrichment.publish([builders.track("Seen", message_id="d"), builders.identify(message_id="e", traits={"plan": "pro"})])
    await graph.change(graph_changed(canonicals=[("p1", "p1")]))
    loader.start()
    client = await ask(loader)
    await client.loaded(4)
    await client.graph_loaded(1)
    assert await client.rows("select id from seen order by id") == [["a"], ["b"], ["d"]]
    assert await client.rows("select id, plan from users") == [["user-1", "pro"]]
    assert await client.counts() == {("warehouse:main", "loaded"): 4}
