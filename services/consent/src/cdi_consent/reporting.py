"""Services' reports, gathered: what comes while a transaction runs is one transaction after it.

A thousand requests bring ten thousand reports within seconds. Each in a transaction of its own would wait for the others' locks, and keep
connections from the data path meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from cdi_consent.domain.privacy import Report
from cdi_consent.ports import Clock, FulfilmentStore, Reported
from cdi_kernel.faults import Fault

TOGETHER: Final = 500
"""Reports in one transaction."""


class _Waiting(NamedTuple):
    reported: Reported
    answer: asyncio.Future[bool | None]


class Reporting:
    """Takes reports while ``run`` runs."""

    def __init__(self, store: FulfilmentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def take(self, request_id: str, service: str, attempt: int, reports: Sequence[Report]) -> bool | None:
        """Returns when the report is stored; see ``FulfilmentStore.report``. Raises ``Unavailable``."""
        waiting = _Waiting(Reported(request_id, service, attempt, reports), asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(waiting)
        return await waiting.answer

    async def run(self) -> None:
        """Stores what comes until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < TOGETHER and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                answers = await self._store.report([one.reported for one in batch], self._clock())
            except BaseException as error:
                # A caller that is left alone would wait for ever.
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error) if isinstance(error, Fault) else one.answer.cancel()
                if not isinstance(error, Fault):
                    raise
                continue
            for one, answer in zip(batch, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)
