"""The warehouse, once this process holds it, and the threads in which it may be touched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import attrgetter
from typing import Final, TypeVar

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import RateLimited, Unavailable
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.domain.documents import targets
from cdi_warehouse_loader.domain.load import Target, Targets
from cdi_warehouse_loader.domain.planned_types import PlannedTypes
from cdi_warehouse_loader.domain.withholding import NO_NEEDS, NeedsOf
from cdi_warehouse_loader.ports import Warehouse

MAX_WAITING_READS: Final = 16
"""Queries that may wait for the one that runs."""

_RETRY_SECONDS: Final = 1.0
_WATCH_SECONDS: Final = 0.5
_DOCUMENTS_SECONDS: Final = 1.0
T = TypeVar("T")
_log = logger(__name__)


class WarehouseBroken(Exception):
    """The warehouse's handle is of no use any more; the process ends and starts anew."""


class Access:
    """Waits for the warehouse, and runs work on it in its threads.

    Args:
        open_warehouse: opens it; blocks; raises ``Unavailable`` while another process holds it.
        rewrite: writes the closed warehouse anew, without what was deleted; blocks.
        others: where the events of a workspace without a document go.
        archives: whether everything is kept in the archive's schema besides.

    Attributes:
        targets: where the events of each workspace go, by the stored documents and what purposes say of them.
    """

    def __init__(
        self, open_warehouse: Callable[[], Warehouse], rewrite: Callable[[], None], others: Sequence[Target], *, archives: bool = False
    ) -> None:
        self.targets = Targets(others=others)
        self.archives = archives
        self._needs: Mapping[str, NeedsOf] = NO_NEEDS
        self._planned: Mapping[str, PlannedTypes] = {}
        self._open = open_warehouse
        self._rewrite = rewrite
        self._warehouse: Warehouse | None = None
        self._reason: str | None = "the warehouse is not open yet"
        self._loading = ThreadPoolExecutor(1, "load")
        self._reading = ThreadPoolExecutor(1, "query")
        self._waiting = 0
        self._opened = asyncio.Event()

    def ready(self) -> str | None:
        """``None`` while this process holds the warehouse, else why not."""
        return self._reason

    async def open(self) -> None:
        """Returns when this process holds the warehouse, however long that takes."""
        loop = asyncio.get_running_loop()
        while self._warehouse is None:
            try:
                self._warehouse = await loop.run_in_executor(self._loading, self._open)
            except Unavailable as fault:
                if fault.message != self._reason:
                    _log.warning("warehouse.waiting", reason=fault.message)
                self._reason = fault.message
                await asyncio.sleep(_RETRY_SECONDS)
        await self.write(self._read_documents)
        self._reason = None
        self._opened.set()
        _log.info("warehouse.open")

    async def held(self) -> None:
        """Returns when this process holds the warehouse."""
        await self._opened.wait()

    async def watch(self) -> None:
        """Opens the warehouse anew whenever it wants that. Never returns.

        Raises:
            WarehouseBroken: the warehouse is of no use any more, or could not be opened again, which takes a new process.
        """
        while True:
            held = self._held()
            if held.broken is not None:
                self._reason = held.broken
                raise WarehouseBroken(held.broken)
            if held.wants_reopening:
                await self._anew(lambda: None)
                _log.info("warehouse.reopened")
            await asyncio.sleep(_WATCH_SECONDS)

    async def write(self, work: Callable[[Warehouse], T]) -> T:
        """Runs work in the thread that loads.

        Raises:
            Unavailable: this process does not hold the warehouse.
        """
        self._held()
        return await asyncio.get_running_loop().run_in_executor(self._loading, lambda: work(self._held()))

    async def read(self, work: Callable[[Warehouse], T]) -> T:
        """Runs work in the thread of queries, beside the loading one.

        Raises:
            Unavailable: this process does not hold the warehouse.
            RateLimited: too much is waiting already.
        """
        self._held()
        if self._waiting >= MAX_WAITING_READS:
            raise RateLimited(error_pb2.ERROR_REASON_RATE_LIMITED, "too many queries are waiting", retry_after=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, lambda: work(self._held()))
        finally:
            self._waiting -= 1

    async def rewrite(self) -> None:
        """Has the warehouse written anew; loads and queries wait meanwhile.

        Raises:
            WarehouseBroken: it could not be opened again, which takes a new process.
        """
        await self._anew(self._try_to_rewrite)

    async def refresh_targets(self) -> None:
        """Reads the documents again after a change."""
        await self.write(self._read_documents)

    async def follow_documents(self) -> None:
        """Heeds, within 2 s, the documents that other processes store where several have the warehouse open. Never returns."""
        await self.held()
        is_alone = await self.write(attrgetter("exclusive"))
        while True:
            await asyncio.sleep(_DOCUMENTS_SECONDS)
            try:
                if not is_alone:
                    await self.refresh_targets()
            except Unavailable as fault:
                _log.warning("warehouse.documents_wait", reason=fault.reason_name)

    async def heed(self, needs: Mapping[str, NeedsOf]) -> None:
        """Takes over what the purposes of all known workspaces say of warehouses; in force when it returns."""
        self._needs = needs
        await self.refresh_targets()

    async def plan(self, planned: Mapping[str, PlannedTypes]) -> None:
        """Takes over the types that the tracking plans of all known workspaces give to new columns."""
        self._planned = planned
        await self.refresh_targets()

    def close(self) -> None:
        """Waits for running work and lets go of the warehouse."""
        self._reason = "closed"
        self._reading.shutdown(cancel_futures=True)
        self._loading.shutdown(cancel_futures=True)
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None

    async def _anew(self, between: Callable[[], None]) -> None:
        """Closes the warehouse, does something, and opens it again. Loads go on until the queries of before have ended."""
        self._held()
        loop = asyncio.get_running_loop()
        idle, over = asyncio.Event(), threading.Event()

        def hold_queries() -> None:
            loop.call_soon_threadsafe(idle.set)
            over.wait()

        queries = loop.run_in_executor(self._reading, hold_queries)
        try:
            await idle.wait()
            await loop.run_in_executor(self._loading, self._open_anew, between)
        finally:
            over.set()
            await queries

    def _try_to_rewrite(self) -> None:
        try:
            self._rewrite()
        except Unavailable as fault:
            _log.warning("warehouse.rewrite_failed", reason=fault.message)

    def _open_anew(self, between: Callable[[], None]) -> None:
        self._held().close()
        between()
        try:
            self._warehouse = self._open()
        except Unavailable as fault:
            self._reason = fault.message
            raise WarehouseBroken(fault.message) from fault

    def _read_documents(self, warehouse: Warehouse) -> None:
        self.targets = replace(targets(warehouse.documents(), self._needs, self.targets.others), planned=self._planned)

    def _held(self) -> Warehouse:
        if self._warehouse is None:
            raise Unavailable("warehouse", self._reason or "the warehouse is not open", retry_after=_RETRY_SECONDS)
        return self._warehouse
