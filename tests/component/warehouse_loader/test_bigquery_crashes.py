"""A process that loads into BigQuery's emulator under kill -9: each message once in each of its tables.

The emulator runs one script at a time only as long as one loader uses it: what BigQuery's own isolation does for several at once is not
tested anywhere.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.ports import Warehouse

from .bigquery_emulator import BigQueryEmulator
from .engines import LOADED, Place, bigquery, rows
from .numbered_loads import EVENTS

KILLS = 8
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


def _some_more(watching: Warehouse) -> None:
    """Waits until something more is loaded."""
    before = sum(watching.counts().values())
    eventually_sync(lambda: sum(watching.counts().values()) > before, within=60.0)
