"""Privacy orders: people are erased from the graph, and what it holds of one is handed out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports_persons import Person, PersonStore
from cdi_privacy import Holding, Step, done

STORE: Final = "profiles"
_encode = msgspec.json.Encoder().encode


class Privacy:
    """The ``Keeper`` of the graph.

    Args:
        store: the graph.
        now_us: the clock, microseconds since 1970.
        changed: called after a commit that may have put something into the outbox.
    """

    def __init__(self, store: PersonStore, now_us: Callable[[], int], changed: Callable[[], None]) -> None:
        self._store = store
        self._now_us = now_us
        self._changed = changed

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``."""
        counts = await self._store.erase(list(map(person_of, orders)), self._now_us())
        self._changed()
        return [[done(table, rows) for table, rows in sorted(each.items()) if rows] or [done(STORE, 0)] for each in counts]

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``."""
        async for name, rows in self._store.held(person_of(order)):
            yield Holding(name, [_encode(row) for row in rows])


def person_of(order: PrivacyOrder) -> Person:
    """Whom an order concerns."""
    identifiers: list[Identifier] = [(order.workspace_id, each.type, each.id) for each in order.subjects if each.id and "\0" not in each.id]
    before_us, profile_ids = order.order_time.ToMicroseconds(), list(order.profile_ids)
    return Person(order.workspace_id, list(dict.fromkeys(identifiers)), profile_ids, before_us, order.tombstone_generation)
