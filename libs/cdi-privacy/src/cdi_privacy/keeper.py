"""What a service adds: erasing people from its stores, and reading what they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cdi.consent.v1 import privacy_pb2
from cdi.consent.v1.privacy_pb2 import PrivacyOrder

Step = privacy_pb2.PrivacyStep

ERASING: Final = frozenset(
    {
        privacy_pb2.PRIVACY_VERB_SUPPRESS_WITH_DELETE,
        privacy_pb2.PRIVACY_VERB_DELETE_ONLY,
        privacy_pb2.PRIVACY_VERB_SUPPRESS_WITH_DELETE_INTERNAL,
        privacy_pb2.PRIVACY_VERB_DELETE_INTERNAL,
    }
)
"""Verbs after which nothing is left of what was there."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Rows that are held about a person, a part of one file of the archive.

    Attributes:
        name: what they are: ``profile``, ``tracks``, …
        rows: JSON objects; never logged.
    """

    name: str
    rows: Sequence[bytes]


class Keeper(Protocol):
    """The stores of one service. Everything may be asked again, and twice at once by two replicas.

    Every method raises a retryable ``Fault`` while it cannot; the orders are then brought again.
    """

    async def erase(self, orders: Sequence[PrivacyOrder]) -> Sequence[Sequence[Step]]:
        """Erases what was received until each order's time, durably, and sees to it that no replay brings it back.

        Returns:
            Per order, in order, one step per store. Finding nothing is FINISHED with a count of 0.
        """
        ...

    def access(self, order: PrivacyOrder) -> AsyncIterator[Holding]:
        """All that is held about the person, in pieces."""
        ...


def erases(order: PrivacyOrder) -> bool:
    """Whether an order asks to erase."""
    return order.verb in ERASING


def done(store: str, count: int, detail: str = "") -> Step:
    """A store's part that is done.

    Args:
        store: as in ``PrivacyStep.store``.
        count: rows, events or calls.
        detail: a remark without personal data.
    """
    return Step(store=store, status=privacy_pb2.PRIVACY_STATUS_FINISHED, count=count, detail=detail)
