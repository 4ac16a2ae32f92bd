"""The configuration that benchmarks run with, applied over the services' own APIs, and what they ask the warehouse."""

from __future__ import annotations

import asyncio

from bench.traffic import WRITE_KEY
from cdi.collector.v1 import collector_service_pb2, source_pb2
from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.peers import Peers, ask

WORKSPACE = "bench"
_ROWS_PER_SECOND = 20_000
"""Faster than the suite: looking costs what is measured, so nobody looks before the rows can be there."""


async def configure(peers: Peers) -> None:
    """One source, two purposes, the warehouse, and one webhook destination that is switched off."""
    source = source_pb2.Source(workspace_id=WORKSPACE, source_id="web", write_keys=[WRITE_KEY])
    await ask((await peers.sources()).ApplySource, collector_service_pb2.ApplySourceRequest(source=source))
    for name in ("analytics", "advertising"):
        purpose = purpose_pb2.Purpose(workspace_id=WORKSPACE, name=name, default_policy=purpose_pb2.DEFAULT_POLICY_REQUIRE)
        await ask((await peers.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
    warehouse = warehouse_service_pb2.Warehouse(workspace_id=WORKSPACE, name="main")
    await ask((await peers.warehouse()).ApplyWarehouse, warehouse_service_pb2.ApplyWarehouseRequest(warehouse=warehouse))
    destination = destination_pb2.Destination(
        workspace_id=WORKSPACE,
        name="off",
        enabled=False,
        purposes=["advertising"],
        webhook=destination_pb2.Webhook(url="http://127.0.0.1:9/"),
    )
    await ask((await peers.router()).ApplyDestination, router_service_pb2.ApplyDestinationRequest(destination=destination))


async def query(peers: Peers, sql: str) -> list[list[object]]:
    """Rows of a query."""
    answer = await ask((await peers.warehouse()).QueryRows, warehouse_service_pb2.QueryRowsRequest(sql=sql, max_rows=10_000))
    return [list(row) for row in answer.rows]


ROWS = "SELECT (SELECT count(*) FROM tracks) + (SELECT count(*) FROM pages) + (SELECT count(*) FROM identifies)"
IDS = """
SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM tracks UNION ALL SELECT id FROM pages UNION ALL SELECT id FROM identifies)
WHERE id >= 'bench-{first:09d}' AND id < 'bench-{end:09d}'
"""


async def count_rows(peers: Peers) -> int:
    """Events in the warehouse. Answered from the tables' metadata: looking must not cost what is measured."""
    ((rows,),) = await query(peers, ROWS)
    return int(str(rows).partition(".")[0])


async def newest(peers: Peers) -> str:
    """When the newest rows were loaded, as the warehouse writes it."""
    ((latest,),) = await query(peers, "SELECT max(loaded_at)::VARCHAR FROM tracks")
    return str(latest)


async def new_rows(peers: Peers, since: str) -> tuple[list[tuple[float, int]], str]:
    """Events that were loaded since an instant: when they were received, Unix seconds, and how many; and the instant to go on from."""
    sql = " UNION ALL ".join(
        f"SELECT received_at, loaded_at FROM {table} WHERE loaded_at > TIMESTAMPTZ '{since}'" for table in ("tracks", "pages", "identifies")
    )
    rows = await query(peers, f"SELECT epoch(received_at), count(*), max(loaded_at)::VARCHAR FROM ({sql}) GROUP BY received_at, loaded_at")
    found = [(float(str(received)), int(float(str(number)))) for received, number, _ in rows]
    return found, max([since, *(str(loaded) for _, _, loaded in rows)])


async def wait_for_rows(peers: Peers, before: int, count: int, *, within: float) -> None:
    """Waits until ``count`` rows more than ``before`` are visible; looks the more often, the fewer are missing.

    Raises:
        TimeoutError: they are not, in time.
    """
    async with asyncio.timeout(within):
        while (missing := before + count - await count_rows(peers)) > 0:  # noqa: ASYNC110 - another process makes the rows
            await asyncio.sleep(min(max(missing / _ROWS_PER_SECOND, 0.05), 1.0))


async def check_rows(peers: Peers, first: int, count: int) -> None:
    """Raises unless each of the events ``first`` to ``first + count`` is exactly one row."""
    ((rows, distinct),) = await query(peers, IDS.format(first=first, end=first + count))
    if (rows, distinct) != (count, count):
        raise AssertionError(f"{rows} rows of {distinct} events instead of {count} of each")
