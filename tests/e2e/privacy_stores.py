"""Where an erased person could still be, and everything that could bring her back: what the test of privacy in a whole suite looks at."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import asyncpg
import duckdb

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_cli.suite import Suite
from cdi_kernel import topology
from cdi_kernel.envelope import EVENT_BATCH_SCHEMA, EVENTS, SCHEMA
from cdi_kernel.faults import NotFound
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Message, Outgoing, connect
from cdi_testing import eventually

TOKEN = f"planted{uuid.uuid4().hex[:12]}"
WORKSPACE = "privacy"
DESTINATIONS = ("waits", "refuses")
READERS = {
    StreamName.COLLECTED: ["enrichment"],
    StreamName.ENRICHED: ["warehouse-loader", "identity"],
    StreamName.REJECTED: ["warehouse-loader"],
    StreamName.IDENTITY: ["warehouse-loader"],
}


async def planted_in_databases(suite: Suite) -> list[str]:
    """``<database>.<table>`` of all services' Postgres that hold the token, as text or as bytes."""
    found = []
    for url in {service.environment.get("CDI_DATABASE_URL") for service in suite.services.values()} - {None}:
        connection = await asyncpg.connect(url)
        try:
            database = await connection.fetchval("SELECT current_database()")
            for (table,) in await connection.fetch(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            ):
                for row in await connection.fetch(f'SELECT * FROM "{table}"'):
                    if any(TOKEN in (v.decode("latin-1") if isinstance(v, bytes) else str(v)) for v in row.values()):
                        found.append(f"{database}.{table}")
                        break
        finally:
            await connection.close()
    return sorted(found)


def planted_in_files(suite: Suite) -> list[str]:
    """The files of the warehouse and of the collector's spool that hold the token. JetStream's are what is replayed."""
    files = [*suite.directory.glob("warehouse.duckdb*"), *(suite.directory / "spool").rglob("*")]
    return [file.name for file in files if TOKEN.encode() in _content(file)]


def _content(file: Path) -> bytes:
    """What is in a file; nothing if it has gone since it was listed, and of a folder."""
    with suppress(FileNotFoundError, IsADirectoryError):
        return file.read_bytes()
    return b""


async def nothing_planted(suite: Suite) -> None:
    async def clean() -> bool:
        left = [*await planted_in_databases(suite), *planted_in_files(suite)]
        assert not left, left
        return True

    await eventually(clean, within=60)


async def replay(suite: Suite) -> None:
    """Everything in COLLECTED anew, and all readers from the beginning of their streams, without what they remember of their places."""
    for name in ("enrichment", "warehouse-loader", "identity"):
        await asyncio.to_thread(suite.services[name].stop)
    async with connect(suite.nats.url, "test") as bus:
        for stream, readers in READERS.items():
            for reader in readers:
                for partition in range(suite.partitions):
                    await _delete_consumer(bus, stream, topology.durable(reader, partition))
        connection = await asyncpg.connect(suite.services["enrichment"].environment["CDI_DATABASE_URL"])
        await connection.execute("DELETE FROM progress; DELETE FROM claims")
        await connection.close()
        with duckdb.connect(str(suite.duckdb_file)) as warehouse:
            warehouse.execute("delete from _cdi.progress")
        await _copy(bus, await _stored(bus, StreamName.COLLECTED))
        for name in ("identity", "warehouse-loader", "enrichment"):
            await asyncio.to_thread(suite.services[name].start)
        for stream, readers in READERS.items():
            for reader in readers:
                for partition in range(suite.partitions):
                    await eventually(lambda s=stream, r=reader, p=partition: _caught_up(bus, s, r, p), within=90)  # type: ignore[misc]


async def replay_to_destinations(suite: Suite) -> list[tuple[int, Event]]:
    """What is hers in ENRICHED once more, for a router that remembers nothing of its places; her events as they are enriched, each with the
    sequence of its message, the copies too."""
    router = suite.services["router"]
    await asyncio.to_thread(router.stop)
    connection = await asyncpg.connect(router.environment["CDI_DATABASE_URL"])
    await connection.execute("DELETE FROM progress")
    await connection.close()
    async with connect(suite.nats.url, "test") as bus:
        await _copy(bus, await _hers(bus))
        await asyncio.to_thread(router.start)
        for reader in ("warehouse-loader", *(topology.destination_reader(WORKSPACE, name) for name in DESTINATIONS)):
            for partition in range(suite.partitions):
                await eventually(lambda r=reader, p=partition: _caught_up(bus, StreamName.ENRICHED, r, p), within=90)  # type: ignore[misc]
        found = await _hers(bus)
    return [(message.sequence, event) for message in found for event in EventBatch.FromString(message.payload).events if _is_hers(event)]


def _is_hers(event: Event) -> bool:
    return TOKEN.encode() in event.SerializeToString()


async def _copy(bus: Bus, stored: Sequence[Message[bytes]]) -> None:
    """Messages once more, under another id: what republishing from a backup does."""
    assert any(TOKEN.encode() in message.payload for message in stored)
    headers = [{SCHEMA: EVENT_BATCH_SCHEMA, EVENTS: message.headers[EVENTS]} for message in stored]
    copies = [Outgoing(one.subject, one.payload, f"copy-{one.sequence}", own) for one, own in zip(stored, headers, strict=True)]
    await bus.publish_all(copies)


async def _stored(bus: Bus, stream: StreamName) -> list[Message[bytes]]:
    """Every message of a stream."""
    info = await bus.api(f"STREAM.INFO.{stream}")
    found = []
    for sequence in range(int(info["state"]["first_seq"]), int(info["state"]["last_seq"]) + 1):
        try:
            found.append(await bus.message(stream, sequence))
        except NotFound:
            continue
    return found


async def _hers(bus: Bus) -> list[Message[bytes]]:
    """Messages of ENRICHED that hold something of hers."""
    return [message for message in await _stored(bus, StreamName.ENRICHED) if TOKEN.encode() in message.payload]


async def _delete_consumer(bus: Bus, stream: StreamName, name: str) -> None:
    try:
        await bus.api(f"CONSUMER.DELETE.{stream}.{name}")
    except NotFound:
        return


async def _caught_up(bus: Bus, stream: StreamName, reader: str, partition: int) -> bool:
    try:
        info = await bus.api(f"CONSUMER.INFO.{stream}.{topology.durable(reader, partition)}")
    except NotFound:
        return stream is not StreamName.COLLECTED and (partition > 0 or reader == "identity")
    return int(info["num_pending"]) + int(info["num_ack_pending"]) == 0
