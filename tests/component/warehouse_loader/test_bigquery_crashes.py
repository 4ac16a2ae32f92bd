"""A process that loads into BigQuery's emulator under kill -9: each message once in each of its tables.

The emulator runs one script at a time only as long as one loader uses it: what BigQuery's own isolation does for several at once is not
tested anywhere.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdi_testing import builders
from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.ports import Warehouse

from .bigquery_emulator import BigQueryEmulator
from .conftest import graph_changed
from .engines import LOADED, Place, bigquery, rows
from .numbered_loads import EVENTS

KILLS = 8
WITHIN_SECONDS = 90.0
"""The emulator is slow: it parses what it is told in Python, some seconds for the tables of a new schema."""

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(bigquery_emulator: BigQueryEmulator) -> Iterator[Place]:
    made = bigquery(bigquery_emulator.new_project())
    yield made
    made.close()


def test_killed_at_any_moment_it_has_each_message_once(place: Place) -> None:
    chance = random.Random(7)
    watching = place.open()
    for _ in range(KILLS):
        loader = subprocess.Popen([sys.executable, "-m", "tests.component.warehouse_loader.numbered_loads", place.options.url], cwd=ROOT)
        try:
            _some_more(watching)
            time.sleep(chance.random() * 0.5)  # the moment of the kill is the input here
            assert loader.poll() is None, "it ended by itself"
        finally:
            loader.kill()
            loader.wait()
    after = place.open()
    messages = sum(position.sequence for position in after.positions.values())
    assert messages >= KILLS
    assert after.counts() == {LOADED: messages * EVENTS}
    assert rows(after, "select count(*), count(distinct id) from main.tracks") == [[messages * (EVENTS - 1)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.seen") == [[messages * (EVENTS - 2)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.identifies") == [[messages] * 2]
    for where, position in after.positions.items():
        found = f"select count(distinct n), min(n), max(n) from main.seen where `partition` = {where.partition}"
        assert rows(after, found) == [[position.sequence, 1, position.sequence]]
    assert len(after.loads(1_000_000)) == messages


async def test_a_loader_that_has_only_bigquery_is_killed_and_goes_on(
    start_loader: Any, enrichment: Any, graph: Any, ask: Any, place: Place
) -> None:
    """The whole service: events and changes of the graph from the streams, questions over gRPC."""
    loader = start_loader(CDI_DUCKDB_PATH="", CDI_WAREHOUSES=json.dumps({"big": place.options.url}))
    await enrichment.publish([builders.track("Seen", message_id="a"), builders.track("Seen", message_id="b")])
    client = await ask(loader)
    await client.loaded(2, within=WITHIN_SECONDS)
    loader.kill()
    await enrichment.publish([builders.track("Seen", message_id="b"), builders.track("Seen", message_id="c")], source=enrichment.sequence)
    await enrichment.publish([builders.track("Seen", message_id="d"), builders.identify(message_id="e", traits={"plan": "pro"})])
    await graph.change(graph_changed(canonicals=[("p1", "p1")]))
    loader.start()
    client = await ask(loader)
    await client.loaded(4, within=WITHIN_SECONDS)
    await client.graph_loaded(1, within=WITHIN_SECONDS)
    assert await client.rows("select id from seen order by id") == [["a"], ["b"], ["d"]]
    assert await client.rows("select id, plan from users") == [["user-1", "pro"]]
    assert await client.counts() == {("warehouse:main", "loaded"): 4}


def _some_more(watching: Warehouse) -> None:
    """Waits until something more is loaded."""
    before = sum(watching.counts().values())
    eventually_sync(lambda: sum(watching.counts().values()) > before, within=WITHIN_SECONDS)
