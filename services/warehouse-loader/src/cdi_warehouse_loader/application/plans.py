"""The types that tracking plans give to new columns, followed in the background: no load asks anybody, and none waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from cdi_kernel.faults import Transient
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.planned_types import NONE_PLANNED, PlannedTypes
from cdi_warehouse_loader.ports import PlanReader

RELOAD_SECONDS: Final = 5.0
"""How often enrichment is asked whether plans changed."""

_log = logger(__name__)


class Plans:
    """Keeps ``Access`` at what the plans of each workspace say.

    A workspace is asked about when its first event comes, once; while enrichment is away, new columns get the type of their first value.

    Args:
        reader: tells the plans.
        access: heeds them.
    """

    def __init__(self, reader: PlanReader, access: Access) -> None:
        self._reader = reader
        self._access = access
        self._known: Mapping[str, PlannedTypes] = {}
        self._reading = asyncio.Lock()

    async def meet(self, workspace_ids: Collection[str]) -> None:
        """Returns when the plans of these workspaces are in force, or cannot be had now."""
        if new := [workspace_id for workspace_id in workspace_ids if workspace_id not in self._known]:
            self._known = {**self._known, **dict.fromkeys(new, NONE_PLANNED)}
            await self._read(new)

    async def follow(self) -> None:
        """Keeps the plans up to date until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await self._read(list(self._known))

    async def _read(self, workspace_ids: Collection[str]) -> None:
        # One at a time: an older answer must not overtake a newer one.
        async with self._reading:
            try:
                told = {**self._known, **{workspace_id: await self._reader.planned(workspace_id) for workspace_id in workspace_ids}}
                if told != self._known:
                    await self._access.plan(told)
                    self._known = told
            except Transient as fault:
                _log.warning("plans.reload_waits", reason=fault.reason_name)
