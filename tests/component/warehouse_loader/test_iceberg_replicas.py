"""Two loaders on one lake: partitions change hands, one is killed, and each event is there once."""

import json
from pathlib import Path
from typing import Any

from cdi_cli.embedded import ServiceProcess
from cdi_kernel.faults import Fault
from cdi_testing import builders, eventually

PARTITIONS, EVENTS = 4, 15


async def test_two_loaders_on_one_lake_load_each_event_once_though_one_is_killed(
    start_loader: Any, enrichment: Any, ask: Any, tmp_path: Path
) -> None:
    settings = {
        "CDI_DUCKDB_PATH": "",
        "CDI_WAREHOUSES": json.dumps({"lake": f"iceberg+sqlite://{tmp_path}/lake"}),
        "CDI_PARTITIONS": str(PARTITIONS),
    }
    first: ServiceProcess = start_loader("first", **settings)
    second: ServiceProcess = start_loader("second", **settings)
    sent = 0

    async def publish(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):
            for partition in range(PARTITIONS):
                names = [f"m{sent + place}" for place in range(EVENTS)]
                events = [builders.track("Seen", message_id=name, properties={f"p{sent % 7}": sent}) for name in names]
                await enrichment.publish([*events, builders.identify(message_id=f"i{sent}", traits={"n": sent})], partition=partition)
                sent += EVENTS

    async def are_loaded(client: Any) -> bool:
        try:
            return bool(await client.value("select count(*) from main.seen") == sent)
        except Fault:
            return False

    await publish(10)
    client = await ask(second)
    await eventually(lambda: are_loaded(client), within=60)
    await publish(5)
    first.kill()
    await publish(10)
    await eventually(lambda: are_loaded(client), within=90)
    first.start()
    await publish(5)
    await eventually(lambda: are_loaded(client), within=90)
    identified = sent // EVENTS
    for table, rows in (("tracks", sent), ("seen", sent), ("identifies", identified)):
        assert await client.rows(f"select count(*), count(distinct id) from main.{table}") == [[rows, rows]]
    assert await client.rows("select count(*) from main.users") == [[1]]
    assert await client.counts() == {("warehouse:main", "loaded"): sent + identified}
