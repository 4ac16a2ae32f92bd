"""kill -9 of processes that load into what stands for Snowflake, two at a time: each message is there once."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.ports import Warehouse

from .conftest import ROOT
from .engines import LOADED, Place, rows, snowflake
from .numbered_loads import EVENTS, PARTITIONS

ROUNDS = 4


@pytest.fixture
def place(snowflake_port: int) -> Iterator[Place]:
    made = snowflake(snowflake_port)
    yield made
    made.close()


def test_killed_at_any_moment_each_message_is_loaded_once(place: Place) -> None:
    chance = random.Random(7)
    watching = place.open()
    watching.ensure_tables("main")
    running = [_start(place), _start(place)]
    try:
        for _ in range(ROUNDS):
            _some_more(watching)
            for victim in running:
                time.sleep(chance.random() * 0.8)  # the moment of the kill is the input here
                assert victim.poll() is None, "it ended by itself"
                victim.kill()
                victim.wait()
            running = [_start(place), _start(place)]
        _some_more(watching)
    finally:
        for process in running:
            process.kill()
            process.wait()
    after = place.open()
    messages = sum(position.sequence for position in after.positions.values())
    assert len(after.positions) == PARTITIONS
    assert after.counts() == {LOADED: messages * EVENTS}
    assert rows(after, "select count(*), count(distinct id) from main.tracks") == [[messages * (EVENTS - 1)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.seen") == [[messages * (EVENTS - 2)] * 2]
    assert rows(after, "select count(*), count(distinct id) from main.identifies") == [[messages] * 2]
    rare = [table for table in after.catalog["main"] if table.startswith("rare_")]
    assert sum(rows(after, f"select count(distinct id) from main.{table}")[0][0] for table in rare) == messages
    for where, position in after.positions.items():
        found = f"select count(distinct n), min(n), max(n) from main.seen where partition = {where.partition}"
        assert rows(after, found) == [[position.sequence, 1, position.sequence]]
    assert len(after.loads(1_000_000)) == messages


def _start(place: Place) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.component.warehouse_loader.numbered_loads", place.options.url], cwd=ROOT)


def _some_more(watching: Warehouse) -> None:
    """Waits until another message is loaded."""
    before = sum(watching.counts().values())
    eventually_sync(lambda: sum(watching.counts().values()) > before, within=30)
