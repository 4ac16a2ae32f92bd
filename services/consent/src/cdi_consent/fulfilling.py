"""The worker behind privacy requests: looks people up, does consent's own part, tells services again, ends what is done.

It remembers nothing: whatever it was at when it was stopped is found in the database again. Every replica runs one; the rows that one works
on are locked, and the others pass them by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from cdi_consent.domain.privacy import retell_after_us
from cdi_consent.domain.privacy_request import Request
from cdi_consent.ports import Clock, FulfilmentStore, HoldingStore, OwnStore, People
from cdi_kernel.faults import Fault, Transient
from cdi_runtime.telemetry import logger

LOOKUPS: Final = 500
"""Requests that are looked up together."""

PARTS: Final = 50
"""Requests whose part here is one transaction: it holds locks of their subjects."""

MOVES: Final = 200
"""Requests that move on in one transaction."""

POLL_SECONDS: Final = 1.0
EXPIRE_SECONDS: Final = 60.0
LOOKUP_AGAIN_US: Final = 1_000_000
"""From the first vain look-up to the next one; doubled each time, to at most a minute."""

_LONGEST_US: Final = 60_000_000

log = logger(__name__)


class Fulfilling:
    """Moves privacy requests on."""

    def __init__(self, store: FulfilmentStore, own: OwnStore, holdings: HoldingStore, people: People, clock: Clock) -> None:
        self._store = store
        self._own = own
        self._holdings = holdings
        self._people = people
        self._clock = clock
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something to do; without it the next poll finds it."""
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled. While the database is away it waits."""
        while True:
            self._wake.clear()
            try:
                moved = await self.step()
            except Fault as fault:
                log.warning("privacy.waiting", reason=fault.reason_name)
                moved = False
            if not moved:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()

    async def expire(self) -> None:
        """Removes archives that have been kept long enough, until cancelled."""
        while True:
            with contextlib.suppress(Transient):
                await self._holdings.expire(self._clock())
            await asyncio.sleep(EXPIRE_SECONDS)

    async def step(self) -> bool:
        """Does what is due, each kind once; whether there was anything. Raises ``Unavailable`` when the database does not answer."""
        looked_up = await self._look_up()
        done = await self._own.work(self._clock(), PARTS)
        moved = await self._store.advance(self._clock(), MOVES)
        return bool(looked_up or done or moved)

    async def _look_up(self) -> int:
        """Finds out who the people of new requests are, and tells the services. While identity is away the requests wait."""
        requests = await self._store.unknown(self._clock(), LOOKUPS)
        by_workspace: dict[str, list[Request]] = {}
        for request in requests:
            by_workspace.setdefault(request.workspace_id, []).append(request)
        for workspace_id, own in by_workspace.items():
            await self._order(workspace_id, own)
        return len(requests)

    async def _order(self, workspace_id: str, requests: Sequence[Request]) -> None:
        try:
            known = await self._people.known(workspace_id, [request.subjects for request in requests])
        except Transient as fault:
            log.warning("privacy.identity_away", reason=fault.reason_name, requests=len(requests))
            tried = min(request.lookups for request in requests) + 1
            pause_us = min(retell_after_us(tried, LOOKUP_AGAIN_US), _LONGEST_US)
            await self._store.postpone(requests, self._clock() + pause_us)
            return
        found = [request._replace(people=one.subjects, profile_ids=one.profile_ids) for request, one in zip(requests, known, strict=True)]
        await self._store.order(found, self._clock())
