"""What end-to-end tests say and look at: the webhook's side, the warehouse's side, the SDK."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

import orjson
from aiohttp import web
from segment.analytics import Client

from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.peers import Peers, ask
from cdi_testing import eventually

WORKSPACE = "e2e"
WRITE_KEY = "e2e-write-key"


@dataclass
class Endpoint:
    """A webhook that records what it accepted and answers what it is told to.

    Attributes:
        url: where it listens.
        status: what it answers.
        arrived: message ids that it answered 200, in order, per anonymous id ("" when there is none); repeated deliveries included.
        refused: number of requests answered otherwise.
    """

    url: str = ""
    status: int = 200
    arrived: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0

    async def receive(self, request: web.Request) -> web.Response:
        events = orjson.loads(await request.read())["events"]
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        for event in events:
            self.arrived[event.get("anonymousId", "")].append(event["messageId"])
        return web.Response(status=200)


async def flush(client: Client) -> None:
    """Waits, without blocking the loop, until the SDK has sent everything."""
    await asyncio.to_thread(client.flush)


async def rows(peers: Peers, sql: str) -> list[list[object]]:
    """Rows of a query in the warehouse."""
    answer = await ask((await peers.warehouse()).QueryRows, warehouse_service_pb2.QueryRowsRequest(sql=sql, max_rows=10_000))
    return [list(row) for row in answer.rows]


async def count(peers: Peers, table: str, prefix: str) -> tuple[int, int]:
    """Rows of a test's events in a table, and different ids among them; (0, 0) while there is no such table."""
    known = await rows(peers, f"SELECT count(*) FROM information_schema.tables WHERE table_name = '{table}'")
    if known == [[0.0]]:
        return 0, 0
    ((total, distinct),) = await rows(peers, f"SELECT count(*), count(DISTINCT id) FROM {table} WHERE id LIKE '{prefix}%'")
    return int(str(total).split(".")[0]), int(str(distinct).split(".")[0])


async def loaded(peers: Peers, table: str, prefix: str, expected: int, *, within: float = 60.0) -> None:
    """Waits for exactly ``expected`` rows, each once."""

    async def complete() -> bool:
        total, distinct = await count(peers, table, prefix)
        assert total == distinct, f"{total - distinct} rows twice"
        assert total == expected, f"{total} of {expected} rows in {table}"
        return True

    await eventually(complete, within=within)


def first_arrivals(endpoint: Endpoint, anonymous_id: str) -> list[str]:
    """Message ids that a person's webhook deliveries brought, each at its first arrival."""
    return list(dict.fromkeys(endpoint.arrived[anonymous_id]))
