"""What is let in at all: bounds on memory and on requests under way, and the rates of sources."""

from __future__ import annotations

import time
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_collector.domain.rate_limit import RateLimit, charged
from cdi_collector.domain.sources import Source
from cdi_collector.faults import OverRate
from cdi_kernel.faults import TooLarge, Unavailable

_RETRY_SECONDS: Final = 1.0
_PACED_SOURCES: Final = 10_000


class Budget:
    """How much of what strangers sent is in memory at once, and how many requests are under way.

    Args:
        limit: bytes.
        requests: requests.
    """

    def __init__(self, limit: int, requests: int) -> None:
        self._limit = limit
        self._room = requests
        self.used = 0

    def enter(self) -> None:
        """Counts a request in; raises ``Unavailable`` when there is no room for it."""
        if not self._room:
            raise Unavailable("collector", "too many requests are in flight", retry_after=_RETRY_SECONDS)
        self._room -= 1

    def leave(self) -> None:
        """Counts a request out."""
        self._room += 1

    def take(self, amount: int) -> None:
        """Counts bytes in; raises ``Unavailable`` when there is no room for them."""
        if self.used + amount > self._limit:
            raise Unavailable("collector", "too many requests are in flight", retry_after=_RETRY_SECONDS)
        self.used += amount

    def give(self, amount: int) -> None:
        """Counts bytes out."""
        self.used -= amount


class Pace:
    """Holds sources to their rates. Knows of each only a number, and of those that have paused nothing.

    Args:
        default: for sources that have none of their own; ``None``: no limit.
    """

    def __init__(self, default: RateLimit | None) -> None:
        self._default = default
        self._paid_off: dict[tuple[str, str], int] = {}

    def check(self, source: Source) -> None:
        """Raises ``OverRate`` if not even one event would be taken now."""
        self._charged(source, 1)

    def charge(self, source: Source, events: int) -> None:
        """Counts events against the rate of their source, all or none.

        Raises:
            TooLarge: no pause is long enough for so many at once.
            OverRate: not now.
        """
        if (paid_off := self._charged(source, events)) is not None:
            if len(self._paid_off) >= _PACED_SOURCES:
                now = time.monotonic_ns()
                self._paid_off = {key: state for key, state in self._paid_off.items() if state > now}
            self._paid_off[source.workspace_id, source.source_id] = paid_off

    def _charged(self, source: Source, events: int) -> int | None:
        limit = source.protection.rate_limit or self._default
        if limit is None:
            return None
        if events > limit.most:
            metadata = {"limit": str(limit.most), "size": str(events)}
            raise TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"this source takes at most {limit.most} events at once", metadata=metadata)
        now = time.monotonic_ns()
        paid_off, wait = charged(limit, self._paid_off.get((source.workspace_id, source.source_id), now), now, events)
        if wait:
            raise OverRate(f"source:{source.source_id}", limit.events_per_second, wait / 1e9, time.time())
        return paid_off
