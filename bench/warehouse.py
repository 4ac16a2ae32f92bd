"""What loading costs. ``python -m bench.warehouse [--rows 10000000] [--copied 100000000]``

One loader on JetStream, one engine at a time. Rows are those of ``tracks`` and of the table of each event: two per event, 40 columns in
the latter. Phases: the cost of a row while the tables grow, and freshness at 5,000 events/s in these, for DuckDB also when their rows were
copied many times over (4 GB of disk for 100 million); as fast as it can, in new tables as in all that follow; 500 kinds of events with
2,000 columns of their own; freshness; and dlt loading the same events as NDJSON into the same engine, as it comes and with its fastest file
format: into the same tables, two rows per event, and into those of the events alone, which is half the work. CPU is that of whole
processes, because the rate falls with whatever else the machine does. Writes build/bench/warehouse.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import duckdb

from bench import report
from bench.meter import Meter
from bench.traffic import percentile
from bench.warehouse_copies import multiply
from bench.warehouse_events import MESSAGE_EVENTS, WORKSPACE, message, raw
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1.warehouse_service_pb2_grpc import WarehouseServiceStub
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_kernel import envelope, topology
from cdi_kernel.faults import Fault
from cdi_runtime import rpc
from cdi_runtime.bus import Bus, connect

TOKEN: Final = "bench"
ENGINES: Final = ("duckdb", "postgresql")
FAST_EVENTS: Final = 150_000
FRESH_EVENTS_PER_SECOND: Final = 5_000
FRESH_SECONDS: Final = 20
GROWN_SECONDS: Final = 60
"""DuckDB folds its log in three times in this; what that takes depends on how full the tables' last row groups are."""

FRESHNESS: Final = {"freshness": "new", "freshness_grown": "grown", "freshness_copied": "copied"}

BLOCK_EVENTS: Final = 250_000
COPIED_BLOCKS: Final = 4
WIDE_EVENTS: Final = 480_000
WIDE_SETTINGS: Final = {
    "CDI_DUCKDB_MEMORY_LIMIT": "256MB",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=200:glibc.malloc.tcache_max=2048",
}
PEER_EVENTS: Final = 50_000
ROWS_PER_EVENT: Final = 2
LAYOUTS: Final = {"tracks": ROWS_PER_EVENT, "events": 1}
"""What dlt loads: rows per event."""

PEER: Final = Path("build/bench/dlt")
GOALS: Final = {"duckdb": 30_000, "postgresql": 12_000}
PEER_FORMATS: Final = {"duckdb": "parquet", "postgresql": "csv"}
"""The fastest of the file formats that dlt has for an engine; ``""`` is the one that it takes by itself."""


@dataclass
class Stand:
    """A loader with its servers."""

    bus: Bus
    client: Any
    parts: dict[str, int]
    loader: ServiceProcess
    published: int = 0
    sequence: int = 0

    async def publish(self, events: int, kind: str = "plain") -> None:
        """Puts events into ENRICHED, in turns over the partitions."""
        for _ in range(events // MESSAGE_EVENTS):
            self.sequence += 1
            await self.bus.publish(
                topology.enriched(self.sequence % topology.DEFAULT_PARTITIONS),
                message(self.published, time.time_ns() // 1_000, kind),
                message_id=f"bench-{self.sequence}",
                headers={envelope.EVENTS: str(MESSAGE_EVENTS), envelope.SOURCE_SEQUENCE: str(self.sequence)},
            )
            self.published += MESSAGE_EVENTS

    async def loaded(self) -> int:
        """Events in the warehouse."""
        try:
            answer = await rpc.call(self.client.CountOutcomes, pb.CountOutcomesRequest(), timeout=20.0)
        except Fault:
            return 0
        return sum(line.events for line in answer.counts if line.sink == "warehouse:main")

    async def follow(self, until: int) -> list[tuple[float, int]]:
        """Instants and the events that were loaded by then, until all are."""
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][1] < until:
            seen.append((time.perf_counter(), await self.loaded()))
            await asyncio.sleep(0.05)
        return seen


@dataclass
class Measured:
    """What a phase used.

    Attributes:
        events_per_second: between the first and the last tenth, so that starting does not count.
        us_per_row: CPU by part.
        peak_mb: resident memory by part.
    """

    events_per_second: float
    us_per_row: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows of all tables."""
        return self.events_per_second * ROWS_PER_EVENT


@asynccontextmanager
async def stand(engine: str, directory: Path, *, ahead: tuple[int, str] = (0, "plain")) -> AsyncIterator[Stand]:
    """A loader of one engine; ``ahead`` events wait for it in the stream. Hundreds of kinds get the settings that the README names."""
    async with AsyncExitStack() as stack:
        nats = stack.enter_context(NatsServer(directory / "nats"))
        environment = {"CDI_NATS_URL": nats.url, "CDI_ADMIN_TOKEN_HASHES": sha256(TOKEN.encode()).hexdigest()}
        parts = {"nats": nats.process.pid}
        if ahead[1] == "wide":
            environment |= WIDE_SETTINGS
        if engine == "duckdb":
            environment["CDI_DUCKDB_PATH"] = str(directory / "warehouse.duckdb")
        else:
            postgres = stack.enter_context(PostgresServer(directory / "postgres"))
            parts["postgres"] = postgres.process.pid
            environment |= {"CDI_DUCKDB_PATH": "", "CDI_WAREHOUSES": json.dumps({"main": postgres.create_database("warehouse")})}
        bus = await stack.enter_async_context(connect(nats.url, "bench"))
        loader = ServiceProcess("warehouse-loader", environment, directory)
        made = Stand(bus, None, parts, loader)
        await made.publish(*ahead)
        stack.enter_context(loader)
        made.parts["loader"] = loader.pid
        made.client = WarehouseServiceStub(await stack.enter_async_context(rpc.channel(loader.grpc, token=TOKEN)))
        yield made


async def measured(on: Stand, until: int) -> Measured:
    """Loads all that is published, measured."""
    before = await on.loaded()
    meter = Meter(on.parts)
    meter.start()
    seen = await on.follow(until)
    meter.stop()
    events = until - before
    part = [(at, count) for at, count in seen if count >= before + events // 10]
    (first_at, first), (last_at, last) = part[0], part[-1]
    rate = (last - first) / max(last_at - first_at, 1e-9)
    used = {name: round(cpu / events / ROWS_PER_EVENT * 1e6, 1) for name, cpu in meter.cpu_seconds.items() if name != "generator"}
    return Measured(rate, used, {name: round(size / 1e6) for name, size in meter.peak_bytes.items() if name != "generator"})


async def fast(engine: str, kind: str, events: int) -> Measured:
    """Events that all wait in the stream when the loader starts."""
    with tempfile.TemporaryDirectory() as directory:
        async with stand(engine, Path(directory), ahead=(events, kind)) as on:
            return await measured(on, events)


async def fresh(engine: str) -> dict[str, float]:
    """Freshness of a warehouse whose tables have just been made."""
    with tempfile.TemporaryDirectory() as directory:
        async with stand(engine, Path(directory), ahead=(MESSAGE_EVENTS * 8, "plain")) as on:
            await on.follow(on.published)
            return await freshness(on, FRESH_SECONDS)


async def freshness(on: Stand, seconds: int) -> dict[str, float]:
    """Milliseconds from publishing a message until its rows can be queried, at a steady rate."""
    published: list[tuple[float, int]] = []
    following = asyncio.create_task(on.follow(on.published + FRESH_EVENTS_PER_SECOND * seconds))
    started = time.perf_counter()
    for turn in range(FRESH_EVENTS_PER_SECOND * seconds // MESSAGE_EVENTS):
        await asyncio.sleep(max(0.0, started + turn * MESSAGE_EVENTS / FRESH_EVENTS_PER_SECOND - time.perf_counter()))
        at = time.perf_counter()
        await on.publish(MESSAGE_EVENTS)
        published.append((at, on.published))
    seen = await following
    waits = [next(at for at, count in seen if count >= number) - begun for begun, number in published]
    return {"p50_ms": round(percentile(waits, 0.5) * 1e3), "p99_ms": round(percentile(waits, 0.99) * 1e3)}


async def growing(engine: str, rows: int, copied: int) -> dict[str, Any]:
    """CPU per row and memory in each block while the tables grow, and the freshness in these; for DuckDB also with ``copied`` rows."""
    with tempfile.TemporaryDirectory() as directory:
        async with stand(engine, Path(directory)) as on:
            blocks = [await block(on) for _ in range(-(-rows // (ROWS_PER_EVENT * BLOCK_EVENTS)))]
            found = {"growing": blocks, "freshness_grown": await freshness(on, GROWN_SECONDS)}
            if engine == "duckdb" and copied:
                on.loader.stop()
                added = multiply(Path(directory) / "warehouse.duckdb", copied)
                on.loader.start()
                on.parts["loader"] = on.loader.pid
                await on.follow(on.published)
                blocks += [await block(on, added) for _ in range(COPIED_BLOCKS)]
                found["freshness_copied"] = await freshness(on, GROWN_SECONDS)
            return found


async def block(on: Stand, copied: int = 0) -> dict[str, float]:
    """What a row of the next ``BLOCK_EVENTS`` costs."""
    loading = asyncio.create_task(measured(on, on.published + BLOCK_EVENTS))
    await on.publish(BLOCK_EVENTS)
    done = await loading
    return {"rows": on.published * ROWS_PER_EVENT + copied, **done.us_per_row, "loader_mb": done.peak_mb["loader"]}


def peer_python() -> Path:
    """The interpreter of an environment that has dlt, which is made when it is first asked for: dlt's needs are not those of CDI."""
    made = PEER / "bin" / "python"
    if not (PEER / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER)], check=True)
        subprocess.run([made, "-m", "pip", "install", "--quiet", "--requirement", "requirements-bench.txt"], check=True)
        (PEER / "ready").touch()
    return made


def peer(engine: str, file_format: str, layout: str, events: int) -> dict[str, float]:
    """dlt with the same events, in a process of its own; seconds without its imports."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "events.ndjson"
        with source.open("w") as lines:
            lines.writelines(json.dumps(one) + "\n" for one in raw(0, events))
        if engine == "duckdb":
            return _run_peer([engine, str(source), f"duckdb:///{directory}/peer.duckdb", file_format, layout], events)
        with PostgresServer(Path(directory) / "postgres") as postgres:
            return _run_peer([engine, str(source), postgres.create_database("peer"), file_format, layout], events)


def _run_peer(arguments: Sequence[str], events: int) -> dict[str, float]:
    environment = {**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(Path(arguments[1]).parent / "dlt")}
    command = [str(peer_python()), "bench/warehouse_peer.py", *arguments]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"dlt failed: {answer.stderr[-2_000:]}")
    told = json.loads(answer.stdout.splitlines()[-1])
    if told["rows"] != (rows := events * LAYOUTS[arguments[-1]]):
        raise RuntimeError(f"dlt has loaded {told['rows']} of {rows} rows")
    return {"events_per_second": round(events / told["seconds"]), "cpu_us_per_event": round(told["cpu_seconds"] / events * 1e6, 1)}


async def run(engines: Sequence[str], rows: int, copied: int) -> dict[str, Any]:
    """All phases, engine by engine."""
    figures: dict[str, Any] = {"workspace": WORKSPACE}
    for engine in engines:
        grown = await growing(engine, rows, copied)
        quick, many = await fast(engine, "plain", FAST_EVENTS), await fast(engine, "wide", WIDE_EVENTS)
        compared = {
            f"{file_format or 'as it comes'}, {layout}": peer(engine, file_format, layout, PEER_EVENTS)
            for layout in LAYOUTS
            for file_format in ("", PEER_FORMATS[engine])
        }
        figures[engine] = {
            "rows_per_second": round(quick.rows_per_second),
            "us_per_row": quick.us_per_row,
            "peak_mb": quick.peak_mb,
            "wide": {"rows_per_second": round(many.rows_per_second), "us_per_row": many.us_per_row, "peak_mb": many.peak_mb},
            "wide_slower": round(quick.rows_per_second / many.rows_per_second, 2),
            "freshness": await fresh(engine),
            "dlt": {name: {**one, "times": round(quick.events_per_second / one["events_per_second"], 1)} for name, one in compared.items()},
            **grown,
        }
        _show(engine, figures[engine])
    return figures


def _show(engine: str, found: dict[str, Any]) -> None:
    times, blocks = "freshness p50 / p99 ms at 5,000 events/s", found["growing"]
    lines = [
        ("rows/s", f"{found['rows_per_second']:,} (goal {GOALS[engine]:,})"),
        ("CPU µs per row", ", ".join(f"{part} {cost}" for part, cost in found["us_per_row"].items())),
        ("peak memory MB", ", ".join(f"{part} {size}" for part, size in found["peak_mb"].items())),
        ("500 kinds, 2,000 columns: times slower", f"{found['wide_slower']} (limit 2)"),
        *(
            (f"{times}, {tables} tables", f"{found[name]['p50_ms']} / {found[name]['p99_ms']} (limit 2,000)")
            for name, tables in FRESHNESS.items()
            if name in found
        ),
        *(
            (f"dlt, events/s, {name}", f"{one['events_per_second']:,}; {one['times']} times slower (goal 5)")
            for name, one in found["dlt"].items()
        ),
        *((f"up to {one['rows']:,} rows: CPU µs per row", _cost(one)) for one in blocks),
    ]
    report.show(f"Loading into {engine}", ("figure", "value"), lines)


def _cost(block: dict[str, float]) -> str:
    parts = ", ".join(f"{part} {block[part]}" for part in ("loader", "postgres", "nats") if part in block)
    return f"{parts}; loader {block['loader_mb']} MB"


def main() -> None:
    """Measures, prints tables and writes the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000, help="how far the tables grow")
    parser.add_argument("--copied", type=int, default=0, help="DuckDB's rows, copied after that")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    asked = parser.parse_args()
    print(f"DuckDB {duckdb.__version__}")
    figures = asyncio.run(run(asked.engine or ENGINES, asked.rows, asked.copied))
    print(f"written to {report.write('warehouse', figures)}")


if __name__ == "__main__":
    main()
