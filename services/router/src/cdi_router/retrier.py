"""The loop that retries what waits, on the partitions that this replica owns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from cdi_kernel.faults import Fault
from cdi_router.application.waiting import WaitingDelivery
from cdi_router.metrics import Observer
from cdi_runtime.telemetry import logger

POLL_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 5.0

log = logger(__name__)


class Retrier:
    """Retries the waiting events of one destination."""

    def __init__(self, waiting: WaitingDelivery, owned: Callable[[], frozenset[int]], observer: Observer) -> None:
        self._waiting = waiting
        self._owned = owned
        self._observer = observer
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Runs until ``finish``. Postgres or consent away: nothing is lost, the loop waits with backoff."""
        try:
            await self._loop()
        finally:
            self._ended.set()

    async def finish(self) -> None:
        """Begins nothing new and waits for what is under way: a request that was made is also stored."""
        self._stopping.set()
        await self._ended.wait()

    async def _loop(self) -> None:
        pause = POLL_SECONDS
        while not self._stopping.is_set():
            try:
                busy = await self._round()
                pause = POLL_SECONDS
            except* Fault as faults:
                busy = False
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)
                log.warning("deliveries.retry_waits", reasons=[str(fault) for fault in faults.exceptions], seconds=pause)
            if not busy:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    async def _round(self) -> bool:
        """Tries once what is due; false when there was nothing."""
        due = await self._waiting.due(sorted(self._owned()))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._partition(partition)) for partition in due]
        return any(task.result() for task in tasks)

    async def _partition(self, partition: int) -> bool:
        started = time.time_ns()
        settlement = await self._waiting.retry(partition)
        if settlement is None:
            return False
        self._observer.settled(settlement, started)
        return True
