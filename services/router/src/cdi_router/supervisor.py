"""Which destinations are in operation: follows the documents, one independent task per destination."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from cdi.event.v1 import outcome_pb2
from cdi_kernel.faults import Fault, Transient
from cdi_router import metrics
from cdi_router.application.needs import Needs
from cdi_router.store.documents import Documents, StoredDestination
from cdi_router.store.reports import Reports
from cdi_runtime.service import ServiceContext
from cdi_runtime.telemetry import logger

RELOAD_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 2.0
_COUNT_EVERY: Final = 15


@dataclass(frozen=True, slots=True)
class Wanted:
    """A destination as it is to be operated.

    Attributes:
        stored: its document.
        needed: purposes that name it; ``None`` while consent has not told them.
    """

    stored: StoredDestination
    needed: tuple[str, ...] | None


Operate = Callable[[Wanted], AbstractAsyncContextManager[None]]
"""A destination in operation for the time of the block; one that is disabled or whose needs are not known merely keeps its place."""

log = logger(__name__)


class _Slot:
    """One destination: what is wanted of it, and what is in operation."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.version = 0
        self.changed = asyncio.Event()
        self.operating = asyncio.Event()
        self.closing = False


class Supervisor:
    """Starts, changes and stops destinations. One that fails to start is tried again and leaves the others alone."""

    def __init__(self, context: ServiceContext, documents: Documents, reports: Reports, needs: Needs, operate: Operate) -> None:
        self._context = context
        self._needs = needs
        self._documents = documents
        self._reports = reports
        self._operate = operate
        self._slots: dict[int, _Slot] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Follows the documents until cancelled. Postgres away: what is in operation stays as it is."""
        turn = 0
        while True:
            try:
                await self._reload()
                if turn % _COUNT_EVERY == 0:
                    await self._count()
                turn += 1
            except Transient as fault:
                log.warning("destinations.reload_failed", reason=fault.reason_name)
            await asyncio.sleep(RELOAD_SECONDS)

    async def follow(self, stored: StoredDestination, within: float) -> None:
        """Takes over a document at once and waits until it is in operation, at most so many seconds."""
        await self._needs.refresh({stored.document.workspace_id})
        slot = self._want(stored)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while slot.version < stored.document.version:
                    slot.operating.clear()
                    await slot.operating.wait()

    async def close(self) -> None:
        """Stops all destinations: each finishes what it has in hand."""
        for slot in self._slots.values():
            slot.closing = True
            slot.changed.set()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _reload(self) -> None:
        found = await self._documents.all()
        await self._needs.refresh({stored.document.workspace_id for stored in found})
        for stored in found:
            self._want(stored)

    async def _count(self) -> None:
        waiting = [count for count in await self._reports.counts() if count.outcome == outcome_pb2.OUTCOME_PARKED]
        names = {slot.wanted.stored.document.name: 0 for slot in self._slots.values()}
        for count in waiting:
            names[count.destination] = names.get(count.destination, 0) + count.events
        metrics.parked(names.items())

    def _want(self, stored: StoredDestination) -> _Slot:
        document = stored.document
        wanted = Wanted(stored, self._needs.of(document.workspace_id, document.name))
        slot = self._slots.get(stored.destination_id)
        if slot is None:
            slot = self._slots[stored.destination_id] = _Slot(wanted)
            self._tasks.append(self._context.spawn(self._run(slot), f"destination-{stored.destination_id}"))
        elif document.version >= slot.wanted.stored.document.version and wanted != slot.wanted:
            slot.wanted = wanted
            slot.changed.set()
        return slot

    async def _run(self, slot: _Slot) -> None:
        """Operates the newest document, one after the other, until the service ends."""
        while not slot.closing:
            slot.changed.clear()
            wanted = slot.wanted
            document = wanted.stored.document
            fields = {"destination": document.name, "version": document.version}
            try:
                async with self._operate(wanted):
                    slot.version = document.version
                    slot.operating.set()
                    log.info("destination.follows", enabled=document.enabled, waits_for_consent=wanted.needed is None, **fields)
                    await slot.changed.wait()
            except Fault as fault:
                log.error("destination.failed", reason=fault.reason_name, text=fault.message, **fields)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RESTART_SECONDS):
                        await slot.changed.wait()
