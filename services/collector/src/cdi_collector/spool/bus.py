"""The bus with a spool in front of it: what JetStream does not take now waits on disk, and leaves before anything newer.

Two ways, one at a time. While nothing waits and NATS is there, messages go to JetStream. Otherwise they go to the spool, also when NATS
is back, until all that waits is stored: so nothing overtakes within a partition. What JetStream did not acknowledge goes to the spool
under the id that it already has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Final

from cdi_collector.spool.log import Spool
from cdi_kernel.faults import Fault, Unavailable
from cdi_runtime.bus import Bus, Outgoing
from cdi_runtime.telemetry import logger

_SHORT_BYTES: Final = 1024 * 1024
"""What is left when the way is switched: short enough to let requests wait for it."""

_FIRST_PACE: Final = 0.005
_SLOWEST_PACE: Final = 0.1
"""Seconds between two appends at most, while the spool is drained more slowly than it fills."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_log = logger(__name__)


class SpoolingBus:
    """The ``Outlet`` that goes on while NATS is away. ``run`` has to run beside it.

    Args:
        bus: need not be connected.
        spool: need not be empty.
    """

    def __init__(self, bus: Bus, spool: Spool) -> None:
        self._bus = bus
        self._spool = spool
        self._left: list[Outgoing] | None = None
        """Of what was taken from the spool, what is not known to be stored; ``None`` when nothing was taken."""
        self._open = asyncio.Event()
        self._open.set()
        self._pace = 0.0
        self._unread_before = math.inf

    def ready(self) -> str | None:
        """``None`` while messages are taken, by JetStream or by the spool."""
        if self._direct or (refusal := self._spool.refusal()) is None:
            return None
        return f"{self._bus.ready() or 'events wait for NATS'}, and {refusal}"

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all messages are stored by JetStream or durable in the spool, those of a subject in the order given.

        A caller has one call with a subject under way at a time, if the order of that subject matters.

        Raises:
            Unavailable: at least one is neither.
            TooLarge: one is over the server's limit.
        """
        await self._open.wait()
        if self._direct:
            messages = await self._publish(messages)
            if messages:
                _log.warning("spool.begun", messages=len(messages))
        if messages:
            await self._spool.append(messages)
            if self._pace and self._bus.ready() is None:
                await asyncio.sleep(self._pace)

    async def run(self) -> None:
        """Publishes what waits whenever NATS is there, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await self._spool.filled()
            if await self._advanced():
                pause = _FIRST_PAUSE
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    @property
    def _direct(self) -> bool:
        return self._spool.empty and self._bus.ready() is None

    async def _advanced(self) -> bool:
        """Takes one step of draining; ``False`` when it has to be tried again later."""
        if self._bus.ready() is not None:
            self._unread_before = math.inf
            return False
        try:
            if not await self._step():
                return False
            self._slow_down()
            if not self._spool.empty and self._spool.unread <= _SHORT_BYTES:
                await self._switch()
        except Fault as fault:
            _log.warning("spool.drain_failed", reason=fault.message)
            return False
        if self._spool.empty:
            self._pace, self._unread_before = 0.0, math.inf
            _log.info("spool.drained")
        return True

    async def _step(self) -> bool:
        """Publishes the oldest messages and removes them; ``False`` when some are not stored."""
        if self._left is None:
            self._left = await self._spool.oldest()
        self._left = await self._publish(self._left)
        if self._left:
            return False
        await self._spool.forget()
        self._left = None
        return True

    def _slow_down(self) -> None:
        """Longer pauses between appends, so more events in each, when a step left no less than the one before it.

        A message per partition and acknowledgement is as fast as draining can be; appending is not held up by acknowledgements, so a
        bus of slow ones would never catch up with many small appends.
        """
        unread = self._spool.unread
        if unread >= self._unread_before:
            self._pace = min(max(self._pace * 2, _FIRST_PACE), _SLOWEST_PACE)
        self._unread_before = unread

    async def _switch(self) -> None:
        """Drains the rest while new messages wait in memory: under steady traffic the spool would never be empty otherwise.

        NATS has just stored a step, so this takes milliseconds. If it goes away meanwhile, they go to the spool.
        """
        self._open.clear()
        try:
            await self._spool.settled()
            while not self._spool.empty and await self._step():
                pass
        finally:
            self._open.set()

    async def _publish(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """What JetStream does not have afterwards, in order. Raises what is wrong with a message itself."""
        outcomes = await self._bus.attempt_all(messages)
        for outcome in outcomes:
            if isinstance(outcome, Fault) and not isinstance(outcome, Unavailable):
                raise outcome
        return [message for message, outcome in zip(messages, outcomes, strict=True) if isinstance(outcome, Unavailable)]
