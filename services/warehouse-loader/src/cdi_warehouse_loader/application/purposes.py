"""What purposes say of warehouses, followed in the background: no load asks anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from cdi_kernel.faults import Transient
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.withholding import NO_NEEDS, NeedsOf
from cdi_warehouse_loader.ports import PurposeReader

RELOAD_SECONDS: Final = 1.0
"""How often consent is asked whether purposes changed; a change is in force within 2 s."""

_log = logger(__name__)


class PurposeRules:
    """Keeps ``Access`` at what the purposes of each workspace say, at most ``RELOAD_SECONDS`` behind while consent answers.

    A workspace is asked about when its first event comes. Until then nobody knows what its warehouses may have, and its events wait.

    Args:
        reader: tells the rules.
        access: heeds them.
    """

    def __init__(self, reader: PurposeReader, access: Access) -> None:
        self._reader = reader
        self._access = access
        self._known: Mapping[str, NeedsOf] = NO_NEEDS
        self._reading = asyncio.Lock()

    async def meet(self, workspace_ids: Collection[str]) -> None:
        """Returns when the rules of these workspaces are in force.

        Raises:
            Unavailable: consent is away and never told the rules of one of them.
        """
        if new := [workspace_id for workspace_id in workspace_ids if workspace_id not in self._known]:
            await self._read(new)

    async def follow(self) -> None:
        """Keeps the rules up to date until cancelled. While consent is away the last ones stay."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await self._read(list(self._known))
            except Transient as fault:
                _log.warning("purposes.reload_waits", reason=fault.reason_name)

    async def _read(self, workspace_ids: Collection[str]) -> None:
        # One at a time: an older answer must not overtake a newer one.
        async with self._reading:
            told = {**self._known, **{workspace_id: await self._reader.needs(workspace_id) for workspace_id in workspace_ids}}
            if told != self._known:
                await self._access.heed(told)
                self._known = told
