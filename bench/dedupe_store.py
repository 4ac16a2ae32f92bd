"""Which store keeps the claims of the dedupe window? ``python -m bench.dedupe_store``

Every candidate gets the same load: batches of 1,000 ids, 2 % of them seen before, on top of ``--keys`` ids that it holds already.
The figures are microseconds per event, for the client process (CPU) and on the wall, and what a take-over by another replica costs.
Writes build/bench/dedupe-store.json. The decision is docs/adr/0004-dedupe-store.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import nats
import nats.js.api
import nats.js.errors
import psutil
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench import garbage
from cdi_cli.embedded import NatsServer, PostgresServer
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.store import ClaimStore
from cdi_runtime.store import Database, raw
from cdi_runtime.store.migrations import upgrade

BATCH = 1_000
DUPLICATES = 20
RESULT = Path("build/bench/dedupe-store.json")


@dataclass
class Figures:
    store: str
    keys: int
    wall_us_per_event: float
    client_cpu_us_per_event: float
    server_cpu_us_per_event: float
    p99_batch_ms: float
    take_over_ms: float
    bytes_per_key: float
    note: str


def key(number: int) -> bytes:
    return blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


class PostgresClaims:
    """The service's own store: one row per id."""

    note = "one row per id, primary key; expiry by DROP"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = ClaimStore(database)

    async def fill(self, keys: Sequence[bytes]) -> None:
        async with self._database.transaction() as connection:
            # As after the first day: half of the window is of yesterday.
            await connection.execute(text("CREATE TABLE claims_2 PARTITION OF claims FOR VALUES IN (2)"))
            await connection.execute(text("INSERT INTO claim_epochs (epoch) VALUES (2)"))
            for start in range(0, len(keys), 50_000):
                epoch = 1 if start < len(keys) // 2 else 2
                records = [(epoch, k, bytes(14)) for k in keys[start : start + 50_000]]
                await raw(connection).copy_records_to_table("claims", records=records, columns=["epoch", "key", "place"])
        async with self._database.session() as connection:
            await connection.execute(text("VACUUM ANALYZE claims"))
            await connection.execute(text("CHECKPOINT"))

    async def claim(self, keys: Sequence[bytes], sequence: int) -> int:
        wanted = {k: Place(sequence, i) for i, k in enumerate(keys)}
        return len(await self._store.claim(wanted, {sequence: 0}))

    async def take_over(self) -> None:
        return

    async def size(self) -> int:
        async with self._database.transaction() as connection:
            found = await connection.execute(text("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('claims')"))
            return int(found.scalar_one())


class PostgresLog:
    """A row per batch that holds all its ids; every replica keeps the window of its partitions in memory."""

    note = "one row per batch, a set in memory: memory grows with the window"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[int, int]] = {}

    async def fill(self, keys: Sequence[bytes]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                text("CREATE TABLE claim_log (partition int, sequence bigint, keys bytea, PRIMARY KEY (partition, sequence))")
            )
            records = [(0, s, b"".join(keys[s * BATCH : (s + 1) * BATCH])) for s in range(len(keys) // BATCH)]
            await raw(connection).copy_records_to_table("claim_log", records=records, columns=["partition", "sequence", "keys"])
        await self.take_over()

    async def claim(self, keys: Sequence[bytes], sequence: int) -> int:
        known = self._known
        fresh = [k for k in keys if k not in known]
        async with self._database.transaction() as connection:
            await raw(connection).execute("INSERT INTO claim_log VALUES (0, $1, $2)", sequence, b"".join(fresh))
        for position, k in enumerate(fresh):
            known[k] = (sequence, position)
        return len(keys) - len(fresh)

    async def take_over(self) -> None:
        self._known.clear()
        async with self._database.transaction() as connection:
            for sequence, joined in await raw(connection).fetch("SELECT sequence, keys FROM claim_log WHERE partition = 0"):
                self._known.update((joined[i : i + 16], (sequence, i // 16)) for i in range(0, len(joined), 16))

    async def size(self) -> int:
        return 0


class LocalSqlite:
    """A file beside the process."""

    note = "a local file: another replica or node cannot take over"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.execute("CREATE TABLE claims (key BLOB PRIMARY KEY, sequence INT, position INT) WITHOUT ROWID")

    async def fill(self, keys: Sequence[bytes]) -> None:
        self._insert(keys, 0)

    async def claim(self, keys: Sequence[bytes], sequence: int) -> int:
        before = self._file.total_changes
        self._insert(keys, sequence)
        return len(keys) - (self._file.total_changes - before)

    def _insert(self, keys: Sequence[bytes], sequence: int) -> None:
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", sorted((k, sequence, i) for i, k in enumerate(keys)))
        self._file.execute("COMMIT")

    async def take_over(self) -> None:
        return

    async def size(self) -> int:
        self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._path.stat().st_size


class NatsKeyValue:
    """A subject per id; the server refuses a second first message of a subject."""

    note = "one message per id, expiry by age"

    def __init__(self, client: Client) -> None:
        self._stream = client.jetstream()

    async def fill(self, keys: Sequence[bytes]) -> None:
        config = nats.js.api.StreamConfig(name="CLAIMS", subjects=["claims.*"], max_msgs_per_subject=1, max_age=86_400)
        await self._stream.add_stream(config)
        for start in range(0, len(keys), BATCH):
            await self.claim(keys[start : start + BATCH], 0)

    async def claim(self, keys: Sequence[bytes], sequence: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        publishes = (self._stream.publish(f"claims.{k.hex()}", b"%d" % sequence, headers=dict(headers)) for k in keys)
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)
        return sum(isinstance(outcome, nats.js.errors.APIError) for outcome in outcomes)

    async def take_over(self) -> None:
        return

    async def size(self) -> int:
        info = await self._stream.stream_info("CLAIMS")
        return int(info.state.bytes)


Candidate = PostgresClaims | PostgresLog | LocalSqlite | NatsKeyValue


async def measure(name: str, store: Candidate, keys: int, batches: int, *, server: int = 0, old: bool = True) -> Figures:
    """Runs the load on one candidate.

    Args:
        name: of the candidate in the table.
        store: it.
        keys: that it holds before.
        batches: of 1,000.
        server: process id of its server, whose children count too; 0 if it has none.
        old: the duplicates are of ids that the store holds from before; otherwise of the batch before.
    """
    known = [key(number) for number in range(keys)]
    memory = _resident()
    await store.fill(known)
    choose = random.Random(1)
    load = [
        [key(keys + b * BATCH + i) for i in range(BATCH - DUPLICATES)] + [known[choose.randrange(keys)] for _ in range(DUPLICATES)]
        for b in range(batches)
    ]
    if not old:
        load = [batch[:-DUPLICATES] + (load[b - 1] if b else known)[:DUPLICATES] for b, batch in enumerate(load)]
    await store.claim([key(2 * keys + BATCH * batches)], 9_999_999)
    served = _cpu(server)
    times: list[float] = []
    cpu = time.process_time()
    for sequence, batch in enumerate(load, start=10_000_000):
        started = time.perf_counter()
        duplicates = await store.claim(batch, sequence)
        times.append(time.perf_counter() - started)
        if not DUPLICATES - 2 <= duplicates <= DUPLICATES:
            raise AssertionError(f"{name}: {duplicates} duplicates")
    cpu = time.process_time() - cpu
    served = _cpu(server) - served
    started = time.perf_counter()
    await store.take_over()
    taken = time.perf_counter() - started
    size = await store.size() or _resident() - memory
    events = batches * BATCH
    return Figures(
        name, keys, _us(sum(times), events), _us(cpu, events), _us(served, events), round(sorted(times)[int(len(times) * 0.99)] * 1e3, 2),
        round(taken * 1e3, 1), round(size / (keys + events), 1), store.note,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def database(server: PostgresServer, name: str) -> AsyncIterator[Database]:
    url = server.create_database(name)
    await upgrade(url, "cdi_enrichment.migrations")
    async with Database.connect(url) as opened:
        yield opened


async def run(keys: int, batches: int) -> list[Figures]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with PostgresServer(directory / "postgres") as server:
            async with database(server, "claims") as opened:
                figures.append(
                    await measure("postgres claims", PostgresClaims(opened), keys, batches, server=server.process.pid, old=False)
                )
            async with database(server, "claims_old") as opened:
                store = PostgresClaims(opened)
                figures.append(await measure("postgres claims, old duplicates", store, keys, batches, server=server.process.pid))
            async with database(server, "log") as opened:
                figures.append(await measure("postgres log + memory", PostgresLog(opened), keys, batches, server=server.process.pid))
        figures.append(await measure("sqlite, local", LocalSqlite(directory / "claims.sqlite"), keys, batches))
        with NatsServer(directory / "nats") as nats_server:
            client = await nats.connect(nats_server.url)
            # A tenth of the load: at one message per id the whole of it would take minutes.
            few = max(keys // 10, BATCH), max(batches // 10, 5)
            figures.append(await measure("nats, subject per id", NatsKeyValue(client), *few, server=nats_server.process.pid))
            await client.close()
    return figures


def _us(seconds: float, events: int) -> float:
    return round(seconds / events * 1e6, 2)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process and its living children have used."""
    if not pid:
        return 0.0
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=200)
    arguments = parser.parse_args()
    garbage.calm()
    figures = asyncio.run(run(arguments.keys, arguments.batches))
    table = Table(
        "store", "keys before", "µs/event", "client CPU µs", "server CPU µs", "p99 of 1,000 ms", "take-over ms", "bytes/key", "note"
    )
    for line in figures:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else value for value in asdict(line).values()))
    Console(width=160).print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    RESULT.write_text(json.dumps({"machine": machine, "batch": BATCH, "figures": [asdict(line) for line in figures]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
