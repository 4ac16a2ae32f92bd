"""The collector alone on one core; the load generator, NATS and Postgres on another.

In turns, round after round, so that a noisy neighbour meets all of them: an empty uvicorn application (the reference), single events over
HTTP, HTTP batches of 100, gRPC requests of 100. Then the latency of single events at half the rate just measured, and the memory with 2,000
connections that have all sent. Everything that is answered 200 has been stored by JetStream before. Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
import orjson
import psutil
import uvloop

from bench import garbage, report
from bench.cores import on_core
from bench.hammer import Hammer, Struck, http_request
from bench.hammer_grpc import GrpcHammer, grpc_request
from bench.traffic import WRITE_KEY, events, percentile
from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1.collector_service_pb2_grpc import SourcesServiceStub
from cdi.collector.v1.source_pb2 import Source
from cdi_cli.embedded import ChildProcess, NatsServer, PostgresServer, ServiceProcess

BATCH: Final = 100
SINGLE_CONNECTIONS: Final = 64
BATCH_CONNECTIONS: Final = 16
IDLE_CONNECTIONS: Final = 2_000
REQUESTS_PER_IDLE_CONNECTION: Final = 5
LATENCY_SECONDS: Final = 10
ADMIN_TOKEN: Final = "bench-admin"
GOALS: Final[Mapping[str, float]] = {
    "single_requests_per_second": 5_000,
    "single_ratio_to_empty_app": 0.35,
    "batch_events_per_second": 40_000,
    "grpc_events_per_second": 60_000,
}
LIMITS: Final[Mapping[str, float]] = {"single_p99_ms_at_half_load": 40, "rss_mb_with_2000_connections": 150}


@dataclass(frozen=True, slots=True)
class Round:
    """One phase once: units are requests, or events where a request holds many."""

    per_second: float
    server_us_per_request: float
    server_busy: float
    generator_core_busy: float


class Phase:
    """Something that is measured again and again against one process."""

    def __init__(self, pid: int, events_per_request: int, run: Callable[[float], Awaitable[Struck]]) -> None:
        self._process = psutil.Process(pid)
        self._events = events_per_request
        self._run = run
        self.rounds: list[Round] = []

    async def measure(self, seconds: float, generator_core: int) -> None:
        """One round."""
        before, core_before = self._process.cpu_times(), psutil.cpu_times(percpu=True)[generator_core]
        started = time.perf_counter()
        struck = await self._run(seconds)
        wall = time.perf_counter() - started
        after, core_after = self._process.cpu_times(), psutil.cpu_times(percpu=True)[generator_core]
        if struck.refused:
            raise RuntimeError(f"not everything was taken: {struck.refused}")
        busy = after.user + after.system - before.user - before.system
        idle = core_after.idle + core_after.iowait - core_before.idle - core_before.iowait
        self.rounds.append(
            Round(
                struck.answered * self._events / struck.seconds, busy / max(struck.answered, 1) * 1e6, busy / wall, 1 - min(idle / wall, 1)
            )
        )

    def median(self, field: str) -> float:
        """Of the rounds."""
        return float(statistics.median(getattr(done, field) for done in self.rounds))

    def spread(self) -> str:
        """The lowest and the highest rate."""
        rates = [done.per_second for done in self.rounds]
        return f"{min(rates):,.0f} - {max(rates):,.0f}"


@dataclass(frozen=True, slots=True)
class Servers:
    """What is measured, running."""

    collector: ServiceProcess
    empty: ChildProcess
    empty_address: str


@contextmanager
def servers(directory: Path, core: int) -> Iterator[Servers]:
    """NATS and Postgres where this process runs, the collector and the empty application on a core of their own."""
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer(directory / "nats"))
        postgres = stack.enter_context(PostgresServer(directory / "postgres", durable=False))
        environment = {
            "CDI_NATS_URL": nats.url,
            "CDI_DATABASE_URL": postgres.create_database("collector"),
            "CDI_SPOOL_DIRECTORY": str(directory / "spool"),
            "CDI_ADMIN_TOKEN_HASHES": sha256(ADMIN_TOKEN.encode()).hexdigest(),
        }
        collector = ServiceProcess("collector", environment, directory)
        collector.migrate()
        output = directory / "empty.out"
        empty = ChildProcess("empty", [sys.executable, "-m", "bench.empty_app"], directory / "empty.log", output_file=output)
        with on_core(core):
            stack.enter_context(collector)
            empty.start()
            stack.callback(empty.kill)
        empty.await_ready(lambda: output.read_text().endswith("\n"), 10)
        source = Source(workspace_id="bench", source_id="web", write_keys=[WRITE_KEY])
        with grpc.insecure_channel(collector.grpc) as channel:
            SourcesServiceStub(channel).ApplySource(
                pb.ApplySourceRequest(source=source), metadata=(("authorization", f"Bearer {ADMIN_TOKEN}"),)
            )
        yield Servers(collector, empty, output.read_text().strip())


async def connected(requests: list[bytes], address: str, connections: int) -> Hammer:
    hammer = Hammer(requests)
    await hammer.connect(address, connections)
    return hammer


async def measure(running: Servers, rounds: int, seconds: float, generator_core: int) -> dict[str, Any]:
    """Everything; figures by name."""
    load = list(events(20_000))
    batches = [load[at : at + BATCH] for at in range(0, len(load), BATCH)]
    singles = [http_request("/v1/track", orjson.dumps(event)) for event in load if event["type"] == "track"][:5_000]
    bodies = [http_request("/v1/batch", orjson.dumps({"batch": batch})) for batch in batches]
    http, pid = running.collector.addresses["http"], running.collector.pid
    async with grpc.aio.insecure_channel(running.collector.grpc) as channel:
        reference = await connected(singles, running.empty_address, SINGLE_CONNECTIONS)
        single = await connected(singles, http, SINGLE_CONNECTIONS)
        batched = await connected(bodies, http, BATCH_CONNECTIONS)
        rpc = GrpcHammer(channel, [grpc_request(batch) for batch in batches])
        phases = {
            "empty": Phase(running.empty.pid, 1, reference.closed),
            "single": Phase(pid, 1, single.closed),
            "batch": Phase(pid, BATCH, batched.closed),
            "grpc": Phase(pid, BATCH, rpc.closed),
        }
        garbage.calm()
        for phase in phases.values():
            await phase.measure(1.0, generator_core)
            phase.rounds.clear()
        for _ in range(rounds):
            for phase in phases.values():
                await phase.measure(seconds, generator_core)
    rate = phases["single"].median("per_second") / 2
    struck = await single.open(rate, LATENCY_SECONDS)
    if struck.refused:
        raise RuntimeError(f"not everything was taken: {struck.refused}")
    for hammer in (reference, single, batched):
        hammer.close()
    return (
        await _memory(running, singles)
        | _rates(phases)
        | {
            "single_p50_ms_at_half_load": round(percentile(struck.latencies, 0.5) * 1000, 1),
            "single_p99_ms_at_half_load": round(percentile(struck.latencies, 0.99) * 1000, 1),
            "half_load_requests_per_second": round(rate),
        }
    )


def _rates(phases: Mapping[str, Phase]) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""
    ratios = [own.per_second / empty.per_second for own, empty in zip(phases["single"].rounds, phases["empty"].rounds, strict=True)]
    return {
        "empty_app_requests_per_second": round(phases["empty"].median("per_second")),
        "single_requests_per_second": round(phases["single"].median("per_second")),
        "single_ratio_to_empty_app": round(statistics.median(ratios), 3),
        "single_cpu_ratio_to_empty_app": round(
            phases["empty"].median("server_us_per_request") / phases["single"].median("server_us_per_request"), 3
        ),
        "batch_events_per_second": round(phases["batch"].median("per_second")),
        "grpc_events_per_second": round(phases["grpc"].median("per_second")),
        "rounds": {name: [msgspec.to_builtins(done) for done in phase.rounds] for name, phase in phases.items()},
        "spread": {name: phase.spread() for name, phase in phases.items()},
        "server_us_per_request": {name: round(phase.median("server_us_per_request"), 1) for name, phase in phases.items()},
        "server_core_busy_share": {name: round(phase.median("server_busy"), 2) for name, phase in phases.items()},
        "generator_core_busy_share": {name: round(phase.median("generator_core_busy"), 2) for name, phase in phases.items()},
    }


async def _memory(running: Servers, singles: list[bytes]) -> dict[str, Any]:
    """Resident memory of the collector, which has by now taken all the load of before: alone, and with open connections."""
    process = psutil.Process(running.collector.pid)
    before = process.memory_info().rss
    crowd = await connected(singles, running.collector.addresses["http"], IDLE_CONNECTIONS)
    for _ in range(REQUESTS_PER_IDLE_CONNECTION):
        struck = await crowd.once()
        if struck.refused or struck.answered != IDLE_CONNECTIONS:
            raise RuntimeError(f"{struck.answered} answers, {struck.refused} refused")
    peak = process.memory_info().rss
    crowd.close()
    return {"rss_mb_before_connections": round(before / 1e6, 1), "rss_mb_with_2000_connections": round(peak / 1e6, 1)}


def show(figures: Mapping[str, Any]) -> None:
    """The tables."""
    names = {"empty": "empty uvicorn app, requests/s", "single": "single events, requests/s", "batch": "HTTP batches of 100, events/s"}
    names["grpc"] = "gRPC unary of 100 (objects as JSON bytes), events/s"
    keys = {"empty": "empty_app_requests_per_second", "single": "single_requests_per_second"}
    rows = []
    for phase, title in names.items():
        rate = figures[keys.get(phase, f"{phase}_events_per_second")]
        busy, other = figures["server_core_busy_share"][phase], figures["generator_core_busy_share"][phase]
        limit = "the server" if busy > 0.93 else "the other core" if other > 0.93 else "waiting for commits"
        cost = f"{figures['server_us_per_request'][phase]:,.0f}"
        rows.append([title, f"{rate:,}", figures["spread"][phase], cost, f"{busy:.0%}", f"{other:.0%}", limit])
    columns = ["phase", "median", "lowest - highest", "CPU µs/request", "server core", "other core", "limited by"]
    report.show("The collector on one core", columns, rows)
    latency = f"{figures['single_p50_ms_at_half_load']} / {figures['single_p99_ms_at_half_load']}"
    memory = f"{figures['rss_mb_before_connections']} / {figures['rss_mb_with_2000_connections']}"
    summary = [
        ["single events: ratio to the empty app", f"{figures['single_ratio_to_empty_app']:.2f}"],
        ["the same by CPU per request, which busy neighbours disturb less", f"{figures['single_cpu_ratio_to_empty_app']:.2f}"],
        [f"p50 / p99 ms at {figures['half_load_requests_per_second']:,} requests/s", latency],
        ["RSS MB without connections / with 2,000", memory],
    ]
    report.show("Single events at half load, memory", ["figure", "value"], summary)


def run(rounds: int, seconds: float, directory: Path) -> dict[str, Any]:
    """Starts the servers and measures."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this benchmark needs two cores: one for the collector alone")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    shutil.rmtree(directory, ignore_errors=True)
    with on_core(cores[1]), servers(directory, cores[0]) as running:
        figures = uvloop.run(measure(running, rounds, seconds, cores[1]))
    shutil.rmtree(directory, ignore_errors=True)
    return figures


def main() -> int:
    """Runs, prints, writes; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    figures = run(arguments.rounds, arguments.seconds, Path("build/bench/collector-state"))
    show(figures)
    print(f"written to {report.write('collector', figures)}")
    missed = [f"{name} {figures[name]:,} < {goal:,}" for name, goal in GOALS.items() if figures[name] < goal]
    missed += [f"{name} {figures[name]:,} > {limit:,}" for name, limit in LIMITS.items() if figures[name] > limit]
    if missed:
        print("goals missed: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
