"""The loader under kill -9: nothing lost, nothing twice; one process holds the file; a query does not stop the loading."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess
from cdi_testing import builders, eventually

PARTITIONS, MESSAGES, EVENTS = 4, 60, 40


async def test_killed_at_any_moment_it_loads_each_event_once(start_loader: Any, enrichment: Any, ask: Any) -> None:
    loader: ServiceProcess = start_loader(CDI_PARTITIONS=str(PARTITIONS), CDI_LOAD_MAX_EVENTS="500")
    feeding = asyncio.create_task(_feed(enrichment))
    for delay in (0.15, 0.4, 0.05, 0.7):
        await asyncio.sleep(delay)  # the kill's moment is the input here, nothing is awaited by it
        loader.kill()
        await asyncio.to_thread(loader.start)
    await feeding
    client = await ask(loader)
    total = PARTITIONS * MESSAGES * EVENTS
    await client.loaded(total, within=90.0)
    assert await client.counts() == {("warehouse:main", "loaded"): total}
    for table, rows in {"tracks": total // 2, "seen": total // 2, "pages": total // 2}.items():
        assert await client.rows(f"select count(*), count(distinct id) from {table}") == [[rows, rows]]
    assert await client.value("select sum(n) from seen") == sum(range(0, EVENTS, 2)) * PARTITIONS * MESSAGES
    # Read as it lies: the order within a partition is the order in which the collector accepted.
    assert await client.value("select count(*) from (select id, row_number() over (partition by partition order by event_seq) as r,"
                              " n from seen) where n <> ((r - 1) % 20) * 2") == 0  # fmt: skip


async def _feed(enrichment: Any) -> None:
    for number in range(MESSAGES):
        for partition in range(PARTITIONS):
            events = [_event(partition, number, place) for place in range(EVENTS)]
            source = await enrichment.publish(events, partition=partition)
            if number % 10 == 9:
                await enrichment.publish(events, partition=partition, source=source)


def _event(partition: int, number: int, place: int) -> Event:
    name = f"m{partition}-{number}-{place}"
    if place % 2:
        return builders.page(message_id=name, context={"run": number})
    return builders.track("Seen", message_id=name, properties={"n": place, f"wide_{number % 7}": place}, context={"run": number})


async def test_a_second_process_waits_for_the_file(start_loader: Any, enrichment: Any, ask: Any) -> None:
    first: ServiceProcess = start_loader("first")
    await ask(first)
    second: ServiceProcess = start_loader("second")
    await eventually(lambda: "another process holds the DuckDB file" in _reasons(second).get("warehouse", ""))
    first.kill()
    await enrichment.publish([builders.track()])
    client = await ask(second)
    await client.loaded(1)
    await eventually(lambda: not _reasons(second))


async def test_a_slow_query_does_not_stop_the_loading(start_loader: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader(CDI_QUERY_SECONDS="20"))
    await enrichment.publish([builders.track()])
    await client.loaded(1)
    slow = asyncio.create_task(client.query("select count(*) from range(300000000) a where hash(a.range) % 3 = 1"))
    loader_client = client
    await enrichment.publish([builders.track("Later", properties={"n": 1})])
    done = asyncio.create_task(loader_client.rows("select n from later"))
    await asyncio.wait([slow])
    assert slow.exception() is None
    assert await done == [[1]]


def _reasons(process: ServiceProcess) -> dict[str, str]:
    try:
        with urllib.request.urlopen(f"http://{process.ops}/readyz", timeout=2) as answer:
            body = answer.read()
    except urllib.error.HTTPError as refused:
        body = refused.read()
    return dict(json.loads(body))
