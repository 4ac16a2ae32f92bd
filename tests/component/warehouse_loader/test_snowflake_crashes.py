"""kill -9 of processes that load into what stands for Snowflake: each message is there once."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_testing import builders, eventually
from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.ports import Warehouse

from .conftest import ROOT
from .engines import Place, rows, snowflake
from .numbered_loads import EVENTS, PARTITIONS, each_message_once

ROUNDS = 4
_PARTITIONS = "select count(distinct partition) from _cdi.progress"


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
        eventually_sync(lambda: rows(watching, _PARTITIONS) == [[PARTITIONS]], within=60)
    finally:
        for process in running:
            process.kill()
            process.wait()
    each_message_once(place.open())


async def test_a_loader_that_is_killed_loads_what_the_stream_has(start_loader: Any, enrichment: Any, ask: Any, place: Place) -> None:
    place.open().ensure_tables("main")
    settings = {"CDI_DUCKDB_PATH": "", "CDI_WAREHOUSES": json.dumps({"shared": place.options.url})}
    loader = start_loader("loader", **settings)
    total = 0
    for number in range(8):
        events = [builders.track("Seen", message_id=f"{number}-{each}", properties={"n": number}) for each in range(5)]
        source = await enrichment.publish(events, partition=number % 2)
        await enrichment.publish(events, partition=number % 2, source=source)
        total += len(events)
    client = await ask(loader)
    loader.kill()
    await asyncio.to_thread(loader.start)
    client = await ask(loader)
    await eventually(lambda: _has(client, total), within=90)
    assert await client.rows("select count(*), count(distinct id) from main.seen") == [[total, total]]
    assert await client.rows("select sum(events)::number(19, 0) from _cdi.outcomes") == [[total]]


async def _has(client: Any, total: int) -> bool:
    try:
        return bool(await client.value("select count(*) from main.tracks") >= total)
    except (Unavailable, InvalidArgument):
        return False


def _start(place: Place) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.component.warehouse_loader.numbered_loads", place.options.url], cwd=ROOT)


def _some_more(watching: Warehouse) -> None:
    """Waits until some more messages are loaded."""
    before = sum(watching.counts().values())
    eventually_sync(lambda: sum(watching.counts().values()) > before + EVENTS, within=60)
