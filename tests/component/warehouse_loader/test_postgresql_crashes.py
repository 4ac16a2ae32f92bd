"""kill -9 of processes that load into Postgres, two at a time: each message is there once."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdi_cli.embedded import PostgresServer, ServiceProcess
from cdi_testing import builders, eventually
from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.ports import Warehouse

from .engines import Place, postgresql
from .numbered_loads import EVENTS, each_message_once

KILLS = 10
ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(postgres_server: PostgresServer, database_url: str) -> Iterator[Place]:
    made = postgresql(postgres_server, database_url)
    yield made
    made.close()


def test_killed_at_any_moment_each_message_is_loaded_once(place: Place) -> None:
    chance = random.Random(7)
    watching = place.open()
    running = [_start(place), _start(place)]
    try:
        for kill in range(KILLS):
            _some_more(watching)
            time.sleep(chance.random() * 0.15)  # the moment of the kill is the input here
            victim = running.pop(kill % 2)
            assert victim.poll() is None, "it ended by itself"
            victim.kill()
            victim.wait()
            running.append(_start(place))
        _some_more(watching)
    finally:
        for process in running:
            process.kill()
            process.wait()
    each_message_once(place.open())


async def test_two_replicas_of_which_one_is_killed_load_each_event_once(start_loader: Any, enrichment: Any, ask: Any, place: Place) -> None:
    settings = {"CDI_DUCKDB_PATH": "", "CDI_WAREHOUSES": json.dumps({"shared": place.options.url})}
    first: ServiceProcess = start_loader("first", **settings)
    second: ServiceProcess = start_loader("second", **settings)
    client = await ask(second)
    total = 0
    for number in range(40):
        for partition in range(4):
            events = [
                builders.track("Seen", message_id=f"{partition}-{number}-{each}", properties={f"n_{number // 9}": 1}) for each in range(5)
            ]
            source = await enrichment.publish(events, partition=partition)
            total += len(events)
            if number % 10 == 9:
                await enrichment.publish(events, partition=partition, source=source)
        if number in (10, 25):
            first.kill()
            await asyncio.to_thread(first.start)
    await eventually(lambda: _has(client, total))
    assert await client.rows("select count(*), count(distinct id) from seen") == [[total, total]]
    assert await client.rows("select sum(events)::bigint from _cdi.outcomes") == [[total]]


async def _has(client: Any, total: int) -> bool:
    return bool(await client.value("select count(*) from seen") >= total)


def _start(place: Place) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.component.warehouse_loader.numbered_loads", place.options.url], cwd=ROOT)


def _some_more(watching: Warehouse) -> None:
    """Waits until some more messages are loaded."""
    before = sum(watching.counts().values())
    eventually_sync(lambda: sum(watching.counts().values()) > before + 3 * EVENTS)
