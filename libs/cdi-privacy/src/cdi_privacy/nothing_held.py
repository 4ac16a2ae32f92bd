"""The ``Keeper`` of a service that keeps nothing that could be erased for a person, and says what it does keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_privacy.keeper import Holding, Step, done


class NothingHeld:
    """Reports a count of 0 for each store, and why.

    Args:
        stores: store → what is in it, in words.
    """

    def __init__(self, stores: Mapping[str, str]) -> None:
        self._steps = [done(store, 0, detail) for store, detail in stores.items()]

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """See ``Keeper``."""
        return [self._steps] * len(orders)

    async def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """See ``Keeper``."""
        for step in self._steps:
            yield Holding(step.store, ())
