"""Is it the destination that is down, or only some people's events that fail?

Parking a person costs rows, holding the stream costs nothing but delays everybody; so the router parks while few fail and holds when the
destination is down. The evidence is counted per destination: distinct people whose requests failed since it last answered. Up to
``TOLERATED`` of them are parked; one more, and the destination is taken as down until it answers somebody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cdi_router.domain.retry import RetryPolicy

TOLERATED: Final = 4
"""People who may fail in a row before the destination counts as down; also how many are tried, one event each, to see if it is back."""


class Breaker:
    """The state of one destination in this replica. Times are seconds of any clock that does not go back."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failing: set[bytes] = set()
        self._pauses = 0
        self._closed_until = 0.0

    @property
    def down(self) -> bool:
        """Whether the destination is taken as down; what is sent now should be few requests."""
        return len(self._failing) > TOLERATED

    def pause(self, now: float) -> float:
        """Seconds for which nothing should be sent; 0 means go."""
        return max(0.0, self._closed_until - now) if self.down else 0.0

    def answered(self) -> None:
        """The destination took or refused something: it is up."""
        self._failing.clear()
        self._pauses = 0

    def failed(self, people: Iterable[bytes], now: float, chance: float, retry_after: float | None) -> None:
        """Requests failed and nothing was answered.

        Args:
            people: whose.
            now: the time.
            chance: a random number, 0 ≤ chance < 1.
            retry_after: the longest wait that was asked for, in seconds.
        """
        self._failing.update(people)
        # Requests that were under way when the pause began say nothing new.
        if self.down and now >= self._closed_until:
            self._pauses += 1
            self._closed_until = now + self._policy.wait(self._pauses, chance, retry_after)
