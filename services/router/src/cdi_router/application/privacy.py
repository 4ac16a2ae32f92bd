"""Privacy orders: stored deliveries of people are deleted, and destinations are told to delete them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from cdi.consent.v1 import privacy_pb2
from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi.event.v1.event_pb2 import Event
from cdi_privacy import Holding, Step, done
from cdi_router.domain.deletion import RUNNING, Forgotten, step_of
from cdi_router.domain.destination import Destination
from cdi_router.ports import Clock, DeletionStore, Owner, PersonStore, Told

STORE: Final = "parked_deliveries"
NO_CALL: Final = "its document has no deletion"

Destinations = Callable[[], Awaitable[Sequence[tuple[int, Destination]]]]
"""All destinations and their ids, also those that are disabled: they may have got events before."""


class Privacy:
    """The ``Keeper`` of the router.

    Args:
        store: stored deliveries.
        deletions: the calls that are to be made.
        destinations: who may have to be told.
        clock: time.
        encode: an event as the archive shows it.
    """

    def __init__(
        self, store: PersonStore, deletions: DeletionStore, destinations: Destinations, clock: Clock, encode: Callable[[Event], bytes]
    ) -> None:
        self._store = store
        self._deletions = deletions
        self._destinations = destinations
        self._clock = clock
        self._encode = encode

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``. What is stored goes first, so that nothing is sent after the call that deletes.

        Calls to destinations are stored here and made afterwards (``application.deletions``); until then their steps are RUNNING.
        """
        counts = await self._store.erase(list(map(owner_of, orders)))
        steps = [[done(table, rows) for table, rows in sorted(each.items())] or [done(STORE, 0)] for each in counts]
        if any(order.at_destinations for order in orders):
            await self._tell(orders, steps)
        return steps

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``: the events that wait, and those that were given up."""
        async for table, events in self._store.held(owner_of(order)):
            yield Holding(table, list(map(self._encode, events)))

    async def _tell(self, orders: Sequence[PrivacyOrder], steps: Sequence[list[Step]]) -> None:
        """Adds the steps of the destinations, and stores those that have a call to make."""
        destinations = await self._destinations()
        told: list[Told] = []
        for order, own in zip(orders, steps, strict=True):
            theirs = [each for each in destinations if order.at_destinations and each[1].workspace_id == order.workspace_id]
            own += [step_of(one.name, privacy_pb2.PRIVACY_STATUS_NOT_SUPPORTED, 0, NO_CALL) for _, one in theirs if not one.can_delete]
            called = {destination_id: one.name for destination_id, one in theirs if one.can_delete}
            if called:
                told.append(Told(_forgotten(order), order.attempt, list(own), list(called)))
                own += [step_of(name, RUNNING) for name in called.values()]
        if told:
            await self._deletions.add(told, self._clock.now())


def owner_of(order: PrivacyOrder) -> Owner:
    """Whom an order concerns."""
    ids = {(each.type, each.id) for each in order.subjects} | {("profile_id", profile_id) for profile_id in order.profile_ids}
    return Owner(order.workspace_id, frozenset(ids), order.order_time.ToMicroseconds())


def _forgotten(order: PrivacyOrder) -> Forgotten:
    subjects = [(each.type, each.id) for each in order.subjects]
    return Forgotten(order.request_id, order.attempt, order.workspace_id, subjects, list(order.profile_ids))
