"""How fast events may come: the generic cell rate algorithm (source: ITU-T I.371), charged per event, in whole nanoseconds.

The state is one number per source: when everything that was taken will have been paid off at the steady rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cdi_collector.domain.limits import MAX_BATCH_EVENTS

MAX_EVENTS_PER_SECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What is allowed: in any time t at most ``burst`` + ``events_per_second`` · t events.

    Attributes:
        events_per_second: steadily; above 0.
        burst: at once, after a pause; 0 stands for any batch, or one second's worth if that is more.
    """

    events_per_second: float
    burst: int = 0

    @property
    def most(self) -> int:
        """Events that can be taken at once."""
        return self.burst or max(MAX_BATCH_EVENTS, math.ceil(self.events_per_second))

    @property
    def event_ns(self) -> int:
        """How long one event takes to be paid off; rounded up, so that rounding never lets more in."""
        return math.ceil(_SECOND / self.events_per_second)


def charged(limit: RateLimit, paid_off_ns: int, now_ns: int, events: int) -> tuple[int, int]:
    """Charges events, all or none.

    Args:
        limit: what is allowed; ``events`` is not over its ``most``, otherwise no wait is long enough.
        paid_off_ns: the state, by the clock of ``now_ns``; any time that has passed for a source that is new.
        now_ns: now.
        events: how many.

    Returns:
        The state from now on, and 0; or the old state and how long to wait, in nanoseconds.
    """
    taken = max(paid_off_ns, now_ns) + events * limit.event_ns
    wait = taken - now_ns - limit.most * limit.event_ns
    return (taken, 0) if wait <= 0 else (paid_off_ns, wait)
