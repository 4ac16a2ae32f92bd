"""Keeps computed traits going: reads the stream while there are definitions, and sweeps what time or an operator has taken out of date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from cdi_identity.ports_computing import ComputedTraitStore
from cdi_kernel.faults import Transient
from cdi_runtime.telemetry import logger

TURN_SECONDS: Final = 1.0
"""Between two looks at the definitions and at what is due; how late a value may be after something left its window."""

SWEEPS: Final = 20
"""Of one turn, at most: so that a great many contributions to a deleted definition keep nothing else waiting."""

SWEEP_PERSONS: Final = 500
"""Persons whose values are put together anew in one transaction."""

SWEEP_CONTRIBUTIONS: Final = 2_000
"""Contributions that are removed in one transaction."""

log = logger(__name__)


class Supervisor:
    """One per replica; what two of them do at once is done once.

    Args:
        store: definitions and values.
        read: reads the stream, and fills new definitions, for the time of the block.
        now_us: the clock, microseconds since 1970.
        changed: called after a commit that may have put something into the outbox.
    """

    def __init__(
        self,
        store: ComputedTraitStore,
        read: Callable[[], AbstractAsyncContextManager[object]],
        now_us: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._read = read
        self._now_us = now_us
        self._changed = changed

    async def run(self) -> None:
        """Follows the definitions until cancelled; without one it only looks. NATS or Postgres away: it tries again."""
        while True:
            try:
                if await self._turn():
                    async with self._read():
                        await self._while_defined()
            except Transient as fault:
                log.warning("computed_traits.waiting", reason=fault.reason_name)
            await asyncio.sleep(TURN_SECONDS)

    async def _while_defined(self) -> None:
        defined = True
        while defined:
            await asyncio.sleep(TURN_SECONDS)
            try:
                defined = await self._turn()
            except Transient as fault:
                log.warning("computed_traits.sweep_failed", reason=fault.reason_name)

    async def _turn(self) -> bool:
        """Sweeps; returns whether there are definitions."""
        defined = bool(await self._store.ids())
        for _ in range(SWEEPS):
            retired = await self._store.sweep_retired(self._now_us(), SWEEP_CONTRIBUTIONS)
            due = defined and await self._store.sweep_due(self._now_us(), SWEEP_PERSONS)
            if not (retired or due):
                break
            self._changed()
        return defined
