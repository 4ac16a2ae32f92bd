"""Privacy orders: stored deliveries of people are deleted, and destinations are told to delete them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from cdi.consent.v1 import privacy_pb2
from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi.event.v1.event_pb2 import Event
from cdi_kernel.faults import Fault
from cdi_privacy import Holding, Step, done
from cdi_router.domain.answer import Answer, Verdict
from cdi_router.domain.destination import Destination
from cdi_router.ports import Clock, Deleter, Deleting, Forgotten, Owner, PersonStore

STORE: Final = "parked_deliveries"
CALLS_AT_ONCE: Final = 8
"""Of all destinations together."""

MAX_WAIT_SECONDS: Final = 5.0
"""Between two attempts of a call; consent tells an order that failed again, so that a long outage is outlived there and not here."""

Destinations = Callable[[str], AsyncIterator[tuple[Destination, Deleting]]]
"""The destinations of a workspace, and how each is told."""


class Privacy:
    """The ``Keeper`` of the router.

    Args:
        store: stored deliveries.
        destinations: the destinations of a workspace, and how each is told.
        environment: what ``env:NAME`` refers to.
        clock: time and chance.
        encode: an event as the archive shows it.
    """

    def __init__(
        self,
        store: PersonStore,
        destinations: Destinations,
        environment: Mapping[str, str],
        clock: Clock,
        encode: Callable[[Event], bytes],
    ) -> None:
        self._store = store
        self._destinations = destinations
        self._environment = environment
        self._clock = clock
        self._encode = encode
        self._gate = asyncio.Semaphore(CALLS_AT_ONCE)

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``. What is stored goes first, so that nothing is sent after the call that deletes."""
        counts = await self._store.erase(list(map(owner_of, orders)))
        steps = [[done(table, rows) for table, rows in sorted(each.items())] or [done(STORE, 0)] for each in counts]
        for workspace_id in sorted({order.workspace_id for order in orders if order.at_destinations}):
            told = {number: order for number, order in enumerate(orders) if order.at_destinations and order.workspace_id == workspace_id}
            async for destination, deleting in self._destinations(workspace_id):
                for number, step in zip(told, await self._tell(destination, deleting, list(told.values())), strict=True):
                    steps[number].append(step)
        return steps

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``: the events that wait, and those that were given up."""
        async for table, events in self._store.held(owner_of(order)):
            yield Holding(table, list(map(self._encode, events)))

    async def _tell(self, destination: Destination, deleting: Deleting, orders: Sequence[PrivacyOrder]) -> Sequence[Step]:
        store = f"destination:{destination.name}"
        try:
            async with deleting(destination, self._environment) as deleter:
                if deleter is None:
                    return [_step(store, privacy_pb2.PRIVACY_STATUS_NOT_SUPPORTED, 0, "its document has no deletion")] * len(orders)
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._delete(store, destination, deleter, order)) for order in orders]
        except Fault as fault:  # the destination cannot be opened: a secret that is missing
            return [_step(store, privacy_pb2.PRIVACY_STATUS_FAILED, 0, fault.message)] * len(orders)
        return [task.result() for task in tasks]

    async def _delete(self, store: str, destination: Destination, deleter: Deleter, order: PrivacyOrder) -> Step:
        person = Forgotten(order.request_id, order.workspace_id, [(each.type, each.id) for each in order.subjects], list(order.profile_ids))
        needed = deleter.requests(person)
        for number in range(needed):
            answer = await self._call(destination, deleter, person, number)
            if answer.verdict is not Verdict.DELIVERED:
                return _step(store, privacy_pb2.PRIVACY_STATUS_FAILED, number, answer.describe())
        return done(store, needed)

    async def _call(self, destination: Destination, deleter: Deleter, person: Forgotten, number: int) -> Answer:
        """One call, tried again as the destination's document says, in quick succession."""
        attempts = 0
        while True:
            async with self._gate:
                answer = await deleter.delete(person, number)
            attempts += 1
            if answer.verdict is not Verdict.FAILED or attempts >= destination.retry.give_up_after_attempts:
                return answer
            await asyncio.sleep(min(destination.retry.wait(attempts, self._clock.chance(), answer.retry_after), MAX_WAIT_SECONDS))


def owner_of(order: PrivacyOrder) -> Owner:
    """Whom an order concerns."""
    ids = {(each.type, each.id) for each in order.subjects} | {("profile_id", profile_id) for profile_id in order.profile_ids}
    return Owner(order.workspace_id, frozenset(ids), order.order_time.ToMicroseconds())


def _step(store: str, status: privacy_pb2.PrivacyStatus.ValueType, count: int, detail: str) -> Step:
    return Step(store=store, status=status, count=count, detail=detail)
