"""The whole way: HTTP batches of 100 → DuckDB rows, all six services, servers and load generator on this machine.

Two phases. Throughput: 200,000 events as fast as they are taken; the clock runs from the first byte sent to the last row visible in DuckDB.
Freshness: half that rate for some seconds; the time from the collector's receipt of an event to the moment its row is visible.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from bench import report, shop
from bench.floor import floor
from bench.meter import Meter, suite_parts
from bench.traffic import bodies, percentile, send
from cdi_cli.peers import Peers, connect_peers
from cdi_cli.suite import SERVICES, Suite

EVENTS = 200_000
WARM_UP_EVENTS = 5_000
FRESHNESS_SECONDS = 15
BATCH = 100
GOAL_EVENTS_PER_SECOND = 8_000
GOAL_RSS_MB = 250


async def measure(suite: Suite, peers: Peers, events: int) -> dict[str, Any]:
    """One run of the throughput phase."""
    payloads = bodies(events, BATCH, first=WARM_UP_EVENTS)
    before = await shop.count_rows(peers)
    meter = Meter(suite_parts(suite))
    meter.start()
    sent = await send(suite.http_url, payloads)
    await shop.wait_for_rows(peers, before, events, within=600)
    seconds = time.time() - sent.started
    meter.stop()
    await shop.check_rows(peers, WARM_UP_EVENTS, events)
    return {
        "events": events,
        "events_per_second": round(events / seconds, 1),
        "accepted_per_second": round(events / (sent.finished - sent.started), 1),
        "request_p50_ms": round(percentile(sent.seconds_per_request, 0.5) * 1000, 1),
        "request_p99_ms": round(percentile(sent.seconds_per_request, 0.99) * 1000, 1),
        "refused": sum(sent.refused.values()),
        "us_per_event": {part: round(cpu / events * 1e6, 1) for part, cpu in meter.cpu_seconds.items()},
        "rss_mb": {part: round(peak / 1e6, 1) for part, peak in meter.peak_bytes.items()},
    }


async def measure_freshness(suite: Suite, peers: Peers, first: int, events_per_second: float) -> dict[str, Any]:
    """Rows' age when they become visible, at a steady rate: looks at what is new as often as queries allow."""
    count = int(events_per_second * FRESHNESS_SECONDS) // BATCH * BATCH
    payloads = bodies(count, BATCH, first=first)
    sending = asyncio.create_task(send(suite.http_url, payloads, rate=events_per_second / BATCH))
    ages: list[float] = []
    newest = await shop.newest(peers)
    deadline = time.monotonic() + FRESHNESS_SECONDS + 60
    seen = 0
    while seen < count and time.monotonic() < deadline:
        rows, newest = await shop.new_rows(peers, newest)
        visible = time.time()
        for received, number in rows:
            ages += [visible - received] * number
            seen += number
        await asyncio.sleep(0.1)
    await sending
    return {
        "freshness_events_per_second": round(events_per_second),
        "freshness_events": seen,
        "freshness_p50_ms": round(percentile(ages, 0.5) * 1000),
        "freshness_p99_ms": round(percentile(ages, 0.99) * 1000),
    }


async def run(events: int, sample_ratio: float, directory: Path) -> dict[str, Any]:
    """A fresh suite, both phases."""
    shutil.rmtree(directory, ignore_errors=True)
    with Suite(directory, sample_ratio=sample_ratio) as suite:
        async with connect_peers(suite.endpoints) as peers:
            await shop.configure(peers)
            await send(suite.http_url, bodies(WARM_UP_EVENTS, BATCH, seed=2))
            await shop.wait_for_rows(peers, 0, WARM_UP_EVENTS, within=120)
            figures = await measure(suite, peers, events)
            rate = figures["events_per_second"] / 2
            figures |= await measure_freshness(suite, peers, WARM_UP_EVENTS + events, rate)
    shutil.rmtree(directory, ignore_errors=True)
    return figures


def show(figures: Mapping[str, Any]) -> None:
    """The table."""
    parts = [*SERVICES, "nats", "postgres", "generator"]
    rows = [[part, f"{figures['us_per_event'][part]:.1f}", f"{figures['rss_mb'][part]:.0f}"] for part in parts]
    rows.append(["all", f"{sum(figures['us_per_event'].values()):.1f}", ""])
    report.show("CPU per event and peak memory", ["part", "µs per event", "RSS MB"], rows)
    summary = [
        ["events/s, HTTP batch → DuckDB row", f"{figures['events_per_second']:,.0f}"],
        ["events/s, accepted", f"{figures['accepted_per_second']:,.0f}"],
        ["floor events/s", f"{figures['floor_events_per_second']:,.0f}"],
        ["ratio to the floor", f"{figures['floor_ratio']:.2f}"],
        ["freshness p50 / p99 ms at half load", f"{figures['freshness_p50_ms']} / {figures['freshness_p99_ms']}"],
        ["request p50 / p99 ms", f"{figures['request_p50_ms']} / {figures['request_p99_ms']}"],
    ]
    report.show(f"The whole way, {figures['events']:,} events", ["figure", "value"], summary)


def main() -> int:
    """Runs, prints, writes; exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--sample-ratio", type=float, default=0.01)
    arguments = parser.parse_args()
    figures = uvloop.run(run(arguments.events, arguments.sample_ratio, Path("build/bench/state")))
    floor_rate = uvloop.run(floor(bodies(min(arguments.events, 100_000), BATCH), min(arguments.events, 100_000)))
    figures |= {"floor_events_per_second": round(floor_rate, 1), "floor_ratio": round(figures["events_per_second"] / floor_rate, 3)}
    show(figures)
    print(f"written to {report.write('whole-way', figures)}")
    heavy = {part: rss for part, rss in figures["rss_mb"].items() if part in SERVICES and rss > GOAL_RSS_MB}
    missed = figures["events_per_second"] < GOAL_EVENTS_PER_SECOND or heavy
    if missed:
        print(f"goal missed: {GOAL_EVENTS_PER_SECOND} events/s, every service at most {GOAL_RSS_MB} MB (over: {heavy})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
