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


async def configure(peers: Peers) -> None:
    """One source, two purposes, the warehouse, and one webhook destination that is switched off."""
    source = source_pb2.Source(workspace_id=WORKSPACE, source_id="web", write_keys=[WRITE_KEY])
    await ask((await peers.sources()).ApplySource, collector_service_pb2.ApplySourceRequest(source=source))
    for name in ("analytics", "advertising"):
        purpose = purpose_pb2.Purpose(workspace_id=WORKSPACE, name=name, default_policy=purpose_pb2.DEFAULT_POLICY_REQUIRE)
        await ask((await peers.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
    warehouse = warehouse_service_pb2.Warehouse(workspace_id=WORKSPACE, name="main", duckdb=warehouse_service_pb2.DuckDb())
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
    answer = await ask((await peers.warehouse()).Query, warehouse_service_pb2.QueryRequest(sql=sql, max_rows=10_000))
    return [list(row) for row in answer.rows]


ROWS = """
SELECT count(*) FROM (SELECT id FROM tracks UNION ALL SELECT id FROM pages UNION ALL SELECT id FROM identifies)
WHERE id >= '{first}' AND id < '{end}'
"""


async def wait_for_rows(peers: Peers, first: int, count: int, *, within: float) -> None:
    """Waits until the rows of the events ``first`` to ``first + count`` are visible, each once.

    Raises:
        TimeoutError: they are not, in time.
    """
    sql = ROWS.format(first=f"bench-{first:09d}", end=f"bench-{first + count:09d}")
    async with asyncio.timeout(within):
        while True:
            ((rows,),) = await query(peers, sql)
            if rows == count:
                return
            if isinstance(rows, float) and rows > count:
                raise AssertionError(f"{rows} rows for {count} events")
            await asyncio.sleep(0.2)
