"""What tracing 1 % of the events costs: CPU per event of the whole suite with and without, in turns, in one run."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

from bench import report
from bench.whole_way import run

ROUNDS = 3
RATIO = 0.01
GOAL_PERCENT = 5.0


def main() -> int:
    """Runs, prints, writes; exit 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    cpu: dict[float, list[float]] = {0.0: [], RATIO: []}
    for number in range(arguments.rounds):
        for ratio in (0.0, RATIO) if number % 2 == 0 else (RATIO, 0.0):
            figures = asyncio.run(run(arguments.events, ratio, Path("build/bench/state")))
            cpu[ratio].append(sum(value for part, value in figures["us_per_event"].items() if part != "generator"))
    without, with_tracing = statistics.median(cpu[0.0]), statistics.median(cpu[RATIO])
    cost = (with_tracing / without - 1) * 100
    rows = [
        [f"{ratio:.0%}", f"{statistics.median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}"] for ratio, values in cpu.items()
    ]
    report.show("Cost of tracing", ["sampled", "µs per event", "spread"], rows)
    figures = {"us_per_event_without": cpu[0.0], "us_per_event_with": cpu[RATIO], "cost_percent": round(cost, 2)}
    print(f"cost {cost:.1f} %; written to {report.write('tracing', figures)}")
    return 1 if cost > GOAL_PERCENT else 0


if __name__ == "__main__":
    sys.exit(main())
