"""Telling destinations to delete people: a few calls at a time, tried again and given up as events are, and reported as they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final

from cdi.consent.v1 import privacy_pb2
from cdi_kernel.faults import Fault
from cdi_router.application.privacy import NO_CALL
from cdi_router.domain.answer import Answer, Verdict
from cdi_router.domain.breaker import TOLERATED, Breaker
from cdi_router.domain.deletion import Deletion
from cdi_router.domain.destination import Destination
from cdi_router.ports import Clock, Deleter, DeletionStore, Standings

CALLS_AT_ONCE: Final = 8
"""Of one destination, each about another person."""

GRACE_SECONDS: Final = 5.0
"""For what a claim takes beside its calls. A process that dies leaves its people alone for this and one timeout."""

Open = Callable[[], AbstractAsyncContextManager[Deleter | None]]

Report = Callable[[Standings], Awaitable[None]]
"""Reports to consent. Raises a ``Fault`` while it does not answer."""


class Deletions:
    """The delete calls of one destination.

    Args:
        destination_id: its key in the store.
        destination: its document.
        open_client: opens its client; ``None`` if its document does not say how it is told. Raises a ``Fault`` for a missing secret.
        store: whom it is still to be told about.
        report: see ``Report``.
        clock: time and chance.
    """

    def __init__(
        self, destination_id: int, destination: Destination, open_client: Open, store: DeletionStore, report: Report, clock: Clock
    ) -> None:
        self._destination_id = destination_id
        self._destination = destination
        self._open = open_client
        self._store = store
        self._report = report
        self._clock = clock
        self._breaker = Breaker(destination.retry)

    async def work(self) -> bool:
        """Makes one call about each of a few people whose turn it is, and reports what changed; false: nothing is due now.

        Raises:
            Fault: Postgres or consent is away. Calls may have been made; they are made again, or reported again.
        """
        now = self._clock.now()
        if self._breaker.pause(now.timestamp()):
            return False
        until = now + timedelta(seconds=self._destination.webhook.timeout_seconds + GRACE_SECONDS)
        limit = TOLERATED if self._breaker.down else CALLS_AT_ONCE
        claimed = await self._store.claim(self._destination_id, now, until, limit)
        if not claimed:
            return False
        called = [one for one in claimed if not one.has_ended]
        after = await self._tell(called) if called else []
        if after:
            await self._store.settle(after, self._clock.now())
        changed = [one for one in claimed if one.has_ended] + [new for old, new in zip(called, after, strict=True) if _differ(old, new)]
        await self._report_all([one.person.request_id for one in changed])
        return True

    async def _tell(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        """One call about each."""
        try:
            async with self._open() as deleter:
                if deleter is None:  # no longer: the document has changed
                    return [one.ended(privacy_pb2.PRIVACY_STATUS_NOT_SUPPORTED, NO_CALL) for one in deletions]
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._call(deleter, one)) for one in deletions]
        except Fault as fault:  # the destination cannot be opened: a secret that is missing
            return [one.ended(privacy_pb2.PRIVACY_STATUS_FAILED, fault.message) for one in deletions]
        self._learn([task.result() for task in tasks])
        return [task.result()[0] for task in tasks]

    async def _call(self, deleter: Deleter, deletion: Deletion) -> tuple[Deletion, Answer | None]:
        calls = deleter.calls(deletion.person)
        if deletion.done >= calls:
            return deletion.ended(privacy_pb2.PRIVACY_STATUS_FINISHED), None
        answer = await deleter.delete(deletion.person, deletion.done)
        return deletion.answered(answer, calls, self._destination.retry, self._clock.now(), self._clock.chance()), answer

    def _learn(self, made: Sequence[tuple[Deletion, Answer | None]]) -> None:
        """Whether the destination is down is told by delete calls alone: they may go elsewhere than events."""
        given = [(one.person.request_id.encode(), answer) for one, answer in made if answer is not None]
        failed = {person: answer for person, answer in given if answer.verdict is Verdict.FAILED}
        if len(failed) < len(given):
            self._breaker.answered()
        elif failed:
            retry_after = max(answer.retry_after or 0.0 for answer in failed.values()) or None
            self._breaker.failed(failed, self._clock.now().timestamp(), self._clock.chance(), retry_after)

    async def _report_all(self, request_ids: Sequence[str]) -> None:
        if not request_ids:
            return
        standings = await self._store.standings(request_ids)
        await asyncio.gather(*(self._report(one) for one in standings))
        await self._store.reported(standings)


def _differ(old: Deletion, new: Deletion) -> bool:
    """Whether there is something to report."""
    return (old.status, old.done, old.detail) != (new.status, new.done, new.detail)
