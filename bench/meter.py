"""What the processes of a benchmark use: CPU seconds and memory, sampled from the operating system."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import psutil

from cdi_cli.suite import Suite


def suite_parts(suite: Suite) -> dict[str, int]:
    """Process ids of a suite: the services by name, ``nats`` and ``postgres``."""
    parts = {name: process.pid for name, process in suite.services.items()}
    return parts | {"nats": suite.nats.process.pid, "postgres": suite.postgres.process.pid}


class Meter:
    """CPU between ``start`` and ``stop``, and the highest resident memory seen meanwhile, per part.

    Args:
        parts: process id by name; children count with their parent, also those that ended meanwhile. The part ``generator``, this
            process alone, is added.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._roots = {**parts, "generator": os.getpid()}
        self._before: Mapping[str, float] = {}
        self._sampled: Mapping[str, list[psutil.Process]] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = dict.fromkeys(self._roots, 0)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begins to measure."""
        # Listing a server's processes costs more than everything else here, so it is done once, before anything is timed.
        self._sampled = {part: self._processes(part) for part in self._roots}
        self._before = self._cpu()
        self._sampler.start()

    def stop(self) -> None:
        """Ends the measurement; the figures are there afterwards."""
        self.cpu_seconds = {part: seconds - self._before[part] for part, seconds in self._cpu().items()}
        self._over.set()
        self._sampler.join()

    def _processes(self, part: str) -> list[psutil.Process]:
        root = psutil.Process(self._roots[part])
        return [root] if part == "generator" else [root, *root.children(recursive=True)]

    def _cpu(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for part in self._roots:
            total = 0.0
            for process in self._processes(part):
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                total += times.user + times.system
                if part != "generator" and process.pid == self._roots[part]:
                    # Autovacuum workers come and go: what they used stays with the server that waited for their end.
                    total += times.children_user + times.children_system
            used[part] = total
        return used

    def _sample(self) -> None:
        while not self._over.wait(0.5):
            for part in self._roots:
                resident = 0
                for process in self._sampled[part]:
                    try:
                        resident += process.memory_info().rss
                    except psutil.Error:
                        continue
                self.peak_bytes[part] = max(self.peak_bytes[part], resident)
