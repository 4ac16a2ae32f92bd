"""The identity service and its Postgres on this machine, with a light client beside them.

The graph grows from 10 thousand to 2 million profiles: the first ones through the service, most others as the rows that it would write
(``bench.identity_filling``). At every size, in batches of 500: known people, asked from a service that remembers nobody; then everybody
comes once, and from then on, in turns, known people, who are remembered as far as the service's memory goes, and new people. A second
service, whose graph has 10 thousand and the new people of its rounds, is asked for the same just before it each time: else a machine that
changes its speed while the graph grows would look like a graph that is not flat. Then single profiles at 1,000 a second, the service
alone on one core, in turns with an empty gRPC service, and a million pairs of identifiers through the service beside the batch jobs that
find the same clusters. Rates are medians of the rounds. The room is what Postgres takes at one million.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from bench import garbage, identity_filling, pairs, people, report, stitching
from bench.identity_stand import PARTS, Empty, Measured, Stand, empty, stand
from bench.traffic import percentile

BATCH: Final = 500
LOAD_BATCH: Final = 2_000
QUESTION_BATCH: Final = 5_000
SIZES: Final = (10_000, 100_000, 1_000_000, 2_000_000)
KNOWN_BATCHES: Final = 200
NEW_PEOPLE: Final = 10_000
PROFILES_PER_SECOND: Final = 1_000
PROFILE_SECONDS: Final = 3
MILLION: Final = 1_000_000
STATE: Final = Path("build/bench/identity-state")
STRANGERS: Final = 10_000
SMALL_BUFFERS: Final = "64MB"
WARMING: Final = 5
COMPARED: Final = ("looked_up", "known", "visits", "new_people")
TITLES: Final[Mapping[str, str]] = {
    "looked_up": "Known people whom a fresh service looks up, each event of another one",
    "known": "Known people who all came before, each event of another one",
    "visits": "Known people, ten events a visit, 5,000 visits at a time",
    "identify": "Known people, each event of another one, a tenth bring newer traits",
    "new_people": "New people: 2.5 identifiers and three traits each",
}
GOALS: Final[Mapping[str, float]] = {
    "looked_up_per_second": 25_000,
    "known_per_second": 25_000,
    "new_people_per_second": 5_000,
    "stitch_same_clusters": 1,
}
LIMITS: Final[Mapping[str, float]] = {
    "looked_up_slower_percent": 20,
    "known_slower_percent": 20,
    "new_people_slower_percent": 20,
    "postgres_mb_per_million_profiles": 1_000,
    "service_rss_mb": 250,
    "get_profile_p99_ms": 5,
    "get_profile_refused": 0,
}


@dataclass(slots=True)
class Size:
    """What was measured with one number of profiles.

    Attributes:
        profiles: before the first round; each round of new people adds some.
        rounds: by phase.
        small: the same by the service with few profiles, of ``COMPARED``.
    """

    profiles: int
    rounds: dict[str, list[Measured]] = field(default_factory=lambda: {phase: [] for phase in TITLES})
    small: dict[str, list[Measured]] = field(default_factory=lambda: {phase: [] for phase in COMPARED})

    def per_second(self, phase: str) -> float:
        """Median of the rounds."""
        return statistics.median(done.per_second for done in self.rounds[phase])

    def share(self, phase: str) -> float:
        """Its rate as a part of that with few profiles; median of the rounds, each a pair."""
        pairs = zip(self.rounds[phase], self.small[phase], strict=True)
        return statistics.median(large.per_second / small.per_second for large, small in pairs)

    def cost(self, phase: str) -> dict[str, float]:
        """Median CPU per event by part, microseconds."""
        return {part: round(statistics.median(done.us_per_event[part] for done in self.rounds[phase]), 1) for part in PARTS}

    def figures(self) -> dict[str, Any]:
        """For the file."""
        figures: dict[str, Any] = {"profiles": self.profiles}
        for phase, rounds in self.rounds.items():
            figures |= {
                f"{phase}_per_second": round(self.per_second(phase)),
                f"{phase}_rounds_per_second": [round(done.per_second) for done in rounds],
                f"{phase}_us_per_event": self.cost(phase),
                f"{phase}_batch_p99_ms": round(statistics.median(done.p99_ms() for done in rounds), 1),
                f"{phase}_other_cores_busy": [done.other_cores for done in rounds],
            }
        for phase, rounds in self.small.items():
            figures |= {
                f"{phase}_share_of_small": round(self.share(phase), 3),
                f"{phase}_small_rounds_per_second": [round(done.per_second) for done in rounds],
            }
        return figures


class Growth:
    """The graph as it grows.

    Args:
        running: an empty one.
        small: another empty one, which is compared with.
        rounds: at every size.
    """

    def __init__(self, running: Stand, small: Stand, rounds: int) -> None:
        self._running = running
        self._small = small
        self._rounds = rounds
        self.people = 0
        self._few = SIZES[0]
        self.loads: list[dict[str, Any]] = []
        self.sizes: list[Size] = []
        self.storage: dict[str, int] = {}

    async def run(self, profiles: int) -> None:
        """Loads and measures up to a number of profiles."""
        empty = self._running.storage_bytes()
        await self._small.resolve(people.new_people(0, self._few, LOAD_BATCH))
        for size in [size for size in SIZES if size < profiles] + [profiles]:
            started = time.perf_counter()
            await self._grow(size)
            for graph in (self._small, self._running):
                graph.settle()
            self.loads.append({"profiles": size, "seconds": round(time.perf_counter() - started, 1)})
            if size in (MILLION, min(profiles, MILLION)):
                # Only what grew is scaled, when less than a million was asked for.
                used = self._running.storage_bytes()
                self.storage = {name: empty[name] + (used[name] - empty[name]) * MILLION // size for name in used}
            self.sizes.append(await self._measure(size))
            print(
                f"{size:,} profiles: {self.sizes[-1].per_second('known'):,.0f} known, {self.sizes[-1].per_second('new_people'):,.0f} new/s"
            )

    async def _grow(self, size: int) -> None:
        """Up to a number of profiles: those of the smallest size by the service."""
        if not self.people:
            self.people = min(size, SIZES[0])
            await self._arrive(self._running, 0, self.people, LOAD_BATCH)
            await identity_filling.verify(self._running.url, range(0, self.people, 97))
        if self.people < size:
            first, self.people = self.people, size
            await identity_filling.fill(self._running.url, first, size - first)
            await identity_filling.verify(self._running.url, range(first, size, (size - first) // 100 + 1))

    async def _measure(self, size: int) -> Size:
        found = Size(size)
        numbers = range(len(self.sizes) * self._rounds, (len(self.sizes) + 1) * self._rounds)
        for number in numbers:
            await self._measure_known(found, "looked_up", number)
        await self._small.resolve(people.everybody(SIZES[0], BATCH))
        await self._running.resolve(people.everybody(size, BATCH))
        for number in numbers:
            for phase in ("known", "visits", "identify"):
                await self._measure_known(found, phase, number)
            found.small["new_people"].append(await self._arrive(self._small, self._few, NEW_PEOPLE, BATCH))
            found.rounds["new_people"].append(await self._arrive(self._running, self.people, NEW_PEOPLE, BATCH))
            self._few, self.people = self._few + NEW_PEOPLE, self.people + NEW_PEOPLE
        return found

    async def _measure_known(self, found: Size, phase: str, number: int) -> None:
        if phase in COMPARED:
            found.small[phase].append(await self._resolve_known(self._small, phase, SIZES[0], number))
        found.rounds[phase].append(await self._resolve_known(self._running, phase, found.profiles, number))

    async def _resolve_known(self, asked: Stand, phase: str, size: int, number: int) -> Measured:
        if phase == "looked_up":
            await asked.forget()
            requests = people.strangers(size, min(STRANGERS, size), BATCH, number)
            await asked.resolve(requests[:WARMING])
            requests = requests[WARMING:]
        else:
            requests = people.known_people(size, KNOWN_BATCHES, BATCH, number, identify=phase == "identify", visits=phase == "visits")
        done = await asked.resolve(requests)
        if done.answered.created or done.answered.merged or done.answered.demoted:
            raise RuntimeError("known people changed the graph")
        return done

    async def _arrive(self, asked: Stand, first: int, count: int, batch: int) -> Measured:
        """New people; each makes one profile."""
        done = await asked.resolve(list(people.new_people(first, count, batch)))
        if (done.answered.created, done.answered.merged, done.answered.demoted) != (count, 0, 0):
            raise RuntimeError(f"{done.answered.created} profiles for {count} new people")
        return done

    def _shares(self, phase: str) -> list[float]:
        if phase in COMPARED:
            return [size.share(phase) for size in self.sizes]
        return [size.per_second(phase) / self.sizes[0].per_second(phase) for size in self.sizes]

    def figures(self) -> dict[str, Any]:
        """For the file. Slower: the slowest size against few profiles, those asked at the same time where there are; faster is no miss."""
        figures: dict[str, Any] = {"loads": self.loads, "sizes": [size.figures() for size in self.sizes]}
        for phase in TITLES:
            rates = [size.per_second(phase) for size in self.sizes]
            costs = [sum(size.cost(phase)[part] for part in ("service", "postgres")) for size in self.sizes]
            figures |= {
                f"{phase}_per_second": round(rates[-1]),
                f"{phase}_slower_percent": round((1 - min(self._shares(phase))) * 100, 1),
                f"{phase}_more_cpu_percent": round((max(costs) / costs[0] - 1) * 100, 1),
            }
        megabytes = {name: round(used / 1e6, 1) for name, used in self.storage.items()}
        return figures | {"postgres_mb_per_million_profiles": megabytes.pop("all"), "postgres_tables_mb_per_million_profiles": megabytes}


async def get_profiles(running: Stand, nothing: Empty, known: int, rounds: int) -> dict[str, Any]:
    """Single profiles by any identifier, in turns from the service and from the empty one."""
    count = PROFILES_PER_SECOND * PROFILE_SECONDS
    # Not counted: the statements are prepared on every connection.
    for asked in (running, nothing):
        await asked.profiles(people.questions(known, count // 3, rounds), PROFILES_PER_SECOND)
    done, floor = [], []
    for number in range(rounds):
        questions = people.questions(known, count, number)
        garbage.calm()
        done.append(await running.profiles(questions, PROFILES_PER_SECOND))
        floor.append(await nothing.profiles(questions, PROFILES_PER_SECOND))
    p99 = [round(one.p99_ms(), 1) for one in done]
    return {
        "empty_grpc_p50_ms": round(statistics.median(percentile(one.answered.latencies, 0.5) * 1000 for one in floor), 2),
        "empty_grpc_p99_ms": round(statistics.median(one.p99_ms() for one in floor), 1),
        "empty_grpc_p99_rounds_ms": [round(one.p99_ms(), 1) for one in floor],
        "empty_grpc_us_per_request": {
            part: statistics.median(one.us_per_event[part] for one in floor) for part in ("service", "generator")
        },
        "get_profile_p50_ms": round(statistics.median(percentile(one.answered.latencies, 0.5) * 1000 for one in done), 2),
        "get_profile_p99_ms": statistics.median(p99),
        "get_profile_p99_rounds_ms": p99,
        "get_profile_refused": sum(one.answered.refused for one in done),
        "get_profile_us_per_request": {part: statistics.median(one.us_per_event[part] for one in done) for part in PARTS},
        "get_profile_other_cores_busy": [one.other_cores for one in done],
    }


async def side_by_side(count: int, shared_buffers: str) -> dict[str, Any]:
    """The same pairs three ways. The service is asked at the end whose every identifier is."""
    given = pairs.make(count)
    batch_job = stitching.with_scipy(given)
    sql = stitching.with_duckdb(given, os.cpu_count() or 1)
    async with stand(STATE / "pairs", "pairs", shared_buffers) as running:
        streamed = await running.resolve(given.requests(BATCH))
        clusters = stitching.canonical(await running.calls.owners(given.singles(QUESTION_BATCH)))
        peak = running.peak_rss_bytes
    same = np.array_equal(batch_job.clusters, sql.clusters) and np.array_equal(batch_job.clusters, clusters)
    sizes = np.unique(batch_job.clusters, return_counts=True)[1]
    return {
        "stitch_pairs": count,
        "stitch_identifiers": len(given.names),
        "stitch_clusters": len(sizes),
        "stitch_largest_cluster": int(sizes.max()),
        "stitch_same_clusters": int(same),
        "stitch_scipy_seconds": round(batch_job.seconds, 2),
        "stitch_duckdb_seconds": round(sql.seconds, 2),
        "stitch_duckdb_rounds": sql.rounds,
        "stitch_service_seconds": round(streamed.answered.seconds, 1),
        "stitch_service_per_second": round(streamed.per_second),
        "stitch_service_batch_p50_ms": round(percentile(streamed.answered.latencies, 0.5) * 1000, 1),
        "stitch_service_batch_p99_ms": round(streamed.p99_ms(), 1),
        "stitch_service_merges": streamed.answered.merged,
        "stitch_service_us_per_event": {part: streamed.us_per_event[part] for part in PARTS},
        "stitch_service_demoted": streamed.answered.demoted,
        "stitch_service_rss_mb": round(peak / 1e6, 1),
    }


async def measure(profiles: int, rounds: int, count: int, shared_buffers: str) -> dict[str, Any]:
    """Everything; figures by name."""
    async with (
        stand(STATE / "growth", "identity", shared_buffers) as running,
        stand(STATE / "small", "small", SMALL_BUFFERS) as small,
    ):
        growth = Growth(running, small, rounds)
        await growth.run(profiles)
        async with empty(STATE) as nothing:
            figures = growth.figures() | await get_profiles(running, nothing, growth.people, rounds)
        figures |= {"postgres_shared_buffers": shared_buffers, "postgres_huge_pages": running.huge_pages()}
        figures["service_rss_mb"] = round(running.peak_rss_bytes / 1e6, 1)
    # Gigabytes that the second part does not need.
    shutil.rmtree(STATE, ignore_errors=True)
    if count:
        figures |= await side_by_side(count, shared_buffers)
        figures["service_rss_mb"] = max(figures["service_rss_mb"], figures["stitch_service_rss_mb"])
    return figures


def show(figures: Mapping[str, Any]) -> None:
    """The tables."""
    columns = ["profiles", "events/s", "lowest - highest", "of 10,000", "service µs", "Postgres µs", "client µs", "batch p99 ms", "other"]
    huge_pages = f"huge pages {figures['postgres_huge_pages']}"
    for phase, title in TITLES.items():
        report.show(f"{title}; {huge_pages}", columns, [_size_row(phase, size) for size in figures["sizes"]])
    tables = figures["postgres_tables_mb_per_million_profiles"]
    rows = [[f"Postgres: {name}", f"{used:,.1f} MB"] for name, used in tables.items() if used >= 0.5]
    rows.append(["Postgres: the whole database", f"{figures['postgres_mb_per_million_profiles']:,.1f} MB"])
    rows.append(["service, highest resident memory of the run", f"{figures['service_rss_mb']:,.1f} MB"])
    report.show(f"Room for a million profiles; shared buffers {figures['postgres_shared_buffers']}, {huge_pages}", ["what", "size"], rows)
    columns = ["", "p50 ms", "p99 ms", "lowest - highest", "service µs", "Postgres µs", "client µs", "refused"]
    rows = [_get_row(figures, "get_profile"), _get_row(figures, "empty_grpc")]
    report.show("GetProfile, 1,000 a second on one core, from when it was due", columns, rows)
    if "stitch_pairs" in figures:
        _show_stitching(figures)


def _get_row(figures: Mapping[str, Any], asked: str) -> list[str]:
    rounds, cost = figures[f"{asked}_p99_rounds_ms"], figures[f"{asked}_us_per_request"]
    costs = [f"{cost[part]:,.0f}" if part in cost else "" for part in PARTS]
    latencies = [f"{figures[f'{asked}_p50_ms']}", f"{figures[f'{asked}_p99_ms']}", f"{min(rounds)} - {max(rounds)}"]
    return [asked, *latencies, *costs, f"{figures.get(f'{asked}_refused', '')}"]


def _size_row(phase: str, size: Mapping[str, Any]) -> list[str]:
    rates, cost = size[f"{phase}_rounds_per_second"], size[f"{phase}_us_per_event"]
    other = statistics.median(size[f"{phase}_other_cores_busy"])
    spread = f"{min(rates):,} - {max(rates):,}"
    costs = [f"{cost[part]:.1f}" for part in PARTS]
    share = f"{size[f'{phase}_share_of_small']:.2f}" if phase in COMPARED else ""
    return [
        f"{size['profiles']:,}",
        f"{size[f'{phase}_per_second']:,}",
        spread,
        share,
        *costs,
        f"{size[f'{phase}_batch_p99_ms']}",
        f"{other:.2f}",
    ]


def _show_stitching(figures: Mapping[str, Any]) -> None:
    rows = [
        ["scipy, connected components in memory", f"{figures['stitch_scipy_seconds']:.1f}", "all pairs again"],
        [f"DuckDB, {figures['stitch_duckdb_rounds']} rounds of joins", f"{figures['stitch_duckdb_seconds']:.1f}", "all pairs again"],
        [
            f"the service, {figures['stitch_service_per_second']:,} pairs/s, {figures['stitch_service_merges']:,} merges",
            f"{figures['stitch_service_seconds']:.1f}",
            f"{figures['stitch_service_batch_p50_ms']:.0f} / {figures['stitch_service_batch_p99_ms']:.0f} ms, p50 / p99 of a batch",
        ],
    ]
    same = "the same" if figures["stitch_same_clusters"] else "NOT the same"
    title = (
        f"{figures['stitch_pairs']:,} pairs, {figures['stitch_identifiers']:,} identifiers, {figures['stitch_clusters']:,} clusters: {same}"
    )
    report.show(title, ["method", "seconds", "until a new pair counts"], rows)


def missed(figures: Mapping[str, Any]) -> Sequence[str]:
    """Goals that were measured and not reached."""
    low = [f"{name} {figures[name]:,} < {goal:,}" for name, goal in GOALS.items() if name in figures and figures[name] < goal]
    return low + [f"{name} {figures[name]:,} > {limit:,}" for name, limit in LIMITS.items() if figures[name] > limit]


def main() -> int:
    """Runs, prints, writes; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=SIZES[-1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=MILLION, help="0 leaves the comparison out")
    parser.add_argument("--shared-buffers", default="768MB", help="of Postgres; the default is what identity's README says for 2 million")
    arguments = parser.parse_args()
    shutil.rmtree(STATE, ignore_errors=True)
    try:
        figures = uvloop.run(measure(arguments.profiles, arguments.rounds, arguments.pairs, arguments.shared_buffers))
    finally:
        shutil.rmtree(STATE, ignore_errors=True)
    show(figures)
    print(f"written to {report.write('identity', figures)}")
    if failures := missed(figures):
        print("goals missed: " + "; ".join(failures))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
