"""The floor: the same bytes through JetStream and into DuckDB, with nothing in between.

No validation, no identity, no columns: one message per HTTP body, rows of (id, JSON). Nothing that does the job of the suite on the
same machine with the same parts can be faster.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from cdi_cli.embedded import NatsServer
from cdi_kernel.envelope import EVENTS
from cdi_kernel.topology import StreamName, collected
from cdi_runtime.bus import Done, Message, Outcome, ReaderSpec, connect, reading
from cdi_runtime.service import ServiceContext

ROWS_PER_INSERT = 10_000


class _Item(msgspec.Struct):
    messageId: str  # noqa: N815 - the wire's name


class _Body(msgspec.Struct):
    batch: list[msgspec.Raw]


async def floor(bodies: list[bytes], events: int) -> float:
    """Events per second of the floor."""
    body, item = msgspec.json.Decoder(_Body), msgspec.json.Decoder(_Item)
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory) / "nats") as server:
        database = duckdb.connect(str(Path(directory) / "floor.duckdb"), config={"threads": 1})
        database.execute("CREATE TABLE events (id VARCHAR, payload VARCHAR)")
        rows: list[bytes] = []
        loaded = 0
        complete = asyncio.Event()

        def insert() -> None:
            nonlocal loaded
            table = pa.table({"id": [item.decode(row).messageId for row in rows], "payload": [row.decode() for row in rows]})
            database.register("batch", table)
            database.execute("INSERT INTO events SELECT * FROM batch")
            database.unregister("batch")
            loaded += len(rows)
            rows.clear()

        async def handle(messages: Sequence[Message[list[msgspec.Raw]]]) -> list[Outcome]:
            rows.extend(bytes(raw) for message in messages for raw in message.body)
            if len(rows) >= ROWS_PER_INSERT or loaded + len(rows) == events:
                insert()
            if loaded == events:
                complete.set()
            return [Done()] * len(messages)

        context = ServiceContext("floor")
        spec = ReaderSpec("floor", "floor", StreamName.COLLECTED, lambda payload: body.decode(payload).batch, 1, lanes=1)
        async with connect(server.url, "floor") as bus, reading(bus, spec, handle, context):
            started = time.monotonic()
            window = asyncio.Semaphore(8)

            async def publish(number: int, payload: bytes) -> None:
                async with window:
                    await bus.publish(collected(0), payload, message_id=str(number), headers={EVENTS: "100"})

            await asyncio.gather(*(publish(number, payload) for number, payload in enumerate(bodies)))
            await complete.wait()
            seconds = time.monotonic() - started
        await context.end_tasks()
        database.close()
    return events / seconds
