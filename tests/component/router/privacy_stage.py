"""A router beside a consent service that the test plays, and an endpoint that takes delete calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web

from cdi.consent.v1 import privacy_pb2
from cdi_testing import builders
from tests.component.privacy_side import Consents, PrivacySide, order

TOKEN = "planted-c41d"
HER = (("user_id", f"{TOKEN}-user"), ("anonymous_id", f"{TOKEN}-device"), ("email", f"{TOKEN}@example.com"))
SERVICE = "router"
PARTITIONS = 4
TABLES = (
    "parked_deliveries", "dead_deliveries", "withheld_deliveries", "barriers", "outcome_counts", "deletion_orders", "deletions",
)  # fmt: skip


@dataclass
class Stage:
    router: Any
    consent: PrivacySide
    consents: Consents
    database: str

    def order(self, *subjects: tuple[str, str], **fields: Any) -> privacy_pb2.PrivacyOrder:
        return order(SERVICE, *(subjects or HER), workspace_id=self.router.workspace, **fields)

    async def rows(self, table: str) -> int:
        connection = await asyncpg.connect(self.database)
        try:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
        finally:
            await connection.close()

    async def planted(self) -> dict[str, int]:
        """Rows with the token, by table."""
        connection = await asyncpg.connect(self.database)
        try:
            found = {}
            for table in TABLES:
                for row in await connection.fetch(f"SELECT * FROM {table}"):
                    if any(TOKEN in (v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)) for v in row.values()):
                        found[table] = found.get(table, 0) + 1
            return found
        finally:
            await connection.close()


@dataclass
class Calls:
    """An endpoint that takes delete calls; ``statuses`` are its answers, in order, then ``always``, unless ``by_path`` says otherwise.

    It answers while ``open``, on ``/quick`` at any time.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    always: int = 200
    by_path: dict[str, int] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[tuple[str, str, dict[str, Any], str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        status = self.statuses.pop(0) if self.statuses else self.by_path.get(request.path, self.always)
        self.taken.append((request.method, request.raw_path, json.loads(await request.read()), request.headers["Idempotency-Key"]))
        if request.path != "/quick":
            await self.open.wait()
        return web.Response(status=status)


@asynccontextmanager
async def taking_calls() -> AsyncIterator[Calls]:
    made = Calls()
    made.open.set()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def hers(number: int = 0, **fields: Any) -> Any:
    return builders.track(user_id=HER[0][1], message_id=f"h{number}", partitions=PARTITIONS, **fields)


def other(number: int = 0) -> Any:
    return builders.track(user_id="other", message_id=f"o{number}", partitions=PARTITIONS)
