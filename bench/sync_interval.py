"""What flushing to disk before every acknowledgement costs: publishes of 50 KB, with ``sync_interval`` 1 s and ``always``, in turns."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import report
from bench.traffic import percentile
from cdi_cli.embedded import NatsServer
from cdi_kernel.topology import collected
from cdi_runtime.bus import connect

MESSAGES = 400
PAYLOAD = b"x" * 50_000
PARTITIONS = 8
ROUNDS = 3


async def measure(sync_interval: str) -> tuple[float, list[float]]:
    """Messages per second with one publish under way per partition, and each publish's seconds."""
    latencies: list[float] = []
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory), sync_interval=sync_interval) as server:
        async with connect(server.url, "bench") as bus:

            async def partition(number: int) -> None:
                for index in range(MESSAGES // PARTITIONS):
                    started = time.perf_counter()
                    await bus.publish(collected(number), PAYLOAD, message_id=f"{number}-{index}")
                    latencies.append(time.perf_counter() - started)

            started = time.perf_counter()
            await asyncio.gather(*map(partition, range(PARTITIONS)))
            return MESSAGES / (time.perf_counter() - started), latencies


def main() -> int:
    """Runs, prints, writes."""
    rates: dict[str, list[float]] = {"1s": [], "always": []}
    p99: dict[str, list[float]] = {"1s": [], "always": []}
    for _ in range(ROUNDS):
        for interval in rates:
            rate, latencies = asyncio.run(measure(interval))
            rates[interval].append(rate)
            p99[interval].append(percentile(latencies, 0.99) * 1000)
    rows = [
        [interval, f"{statistics.median(rates[interval]):,.0f}", f"{statistics.median(p99[interval]):.1f}", f"{min(rates[interval]):,.0f}"]
        for interval in rates
    ]
    report.show("JetStream, 50 KB messages, 8 partitions", ["sync_interval", "messages/s", "p99 ms", "worst messages/s"], rows)
    print(f"written to {report.write('sync-interval', {'messages_per_second': rates, 'publish_p99_ms': p99})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
