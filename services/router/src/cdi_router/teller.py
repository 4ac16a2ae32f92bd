"""The loop that tells destinations to delete people: a task for each that has something due, so that a slow one delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cdi_kernel.faults import Fault
from cdi_router.application.deletions import Deletions
from cdi_router.application.privacy import Destinations
from cdi_router.domain.destination import Destination
from cdi_router.ports import Clock, DeletionStore
from cdi_router.retrier import MAX_BACKOFF_SECONDS, POLL_SECONDS
from cdi_runtime.telemetry import logger

log = logger(__name__)


class Teller:
    """Makes the delete calls that are due. Any number of replicas may: what one works on is claimed.

    Args:
        store: of the calls.
        destinations: all of them, as they are now.
        make: the calls of one destination; anew when its document changes.
        clock: time.
    """

    def __init__(
        self, store: DeletionStore, destinations: Destinations, make: Callable[[int, Destination], Deletions], clock: Clock
    ) -> None:
        self._store = store
        self._destinations = destinations
        self._make = make
        self._clock = clock
        self._made: dict[int, tuple[Destination, Deletions]] = {}
        self._busy: set[int] = set()

    async def run(self) -> None:
        """Runs until cancelled. Postgres or consent away: nothing is lost, the loop waits."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._start(group)
                except Fault as fault:
                    log.warning("deletions.wait", reason=fault.reason_name)
                await asyncio.sleep(POLL_SECONDS)

    async def _start(self, group: asyncio.TaskGroup) -> None:
        due = set(await self._store.due(self._clock.now())) - self._busy
        if not due:
            return
        for destination_id, destination in await self._destinations():
            if destination_id in due:
                self._busy.add(destination_id)
                group.create_task(self._work(destination_id, destination))

    async def _work(self, destination_id: int, destination: Destination) -> None:
        known = self._made.get(destination_id)
        if known is None or known[0] != destination:
            known = self._made[destination_id] = destination, self._make(destination_id, destination)
        try:
            while await known[1].work():
                pass
        except* Fault as faults:
            log.warning("deletions.wait", destination=destination.name, reasons=[str(fault) for fault in faults.exceptions])
            await asyncio.sleep(MAX_BACKOFF_SECONDS)
        finally:
            self._busy.discard(destination_id)
