"""When to try again, and when to give up (source: docs of RudderStack's router, ``reference/routing``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RETRY_AFTER_SECONDS: Final = 3_600.0
"""A ``Retry-After`` beyond this is taken as this: one wrong header must not stop a destination for a week."""

JITTER: Final = 0.25
"""The share of a wait that chance may take off, so that what failed together does not come back together."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        initial_seconds: the wait after the first failure; doubled with each one.
        max_seconds: the longest wait.
        give_up_after_seconds: give up only when so long has passed since the first attempt …
        give_up_after_attempts: … and so many attempts that count have failed.
    """

    initial_seconds: float = 10.0
    max_seconds: float = 300.0
    give_up_after_seconds: float = 10_800.0
    give_up_after_attempts: int = 3

    def wait(self, attempts: int, chance: float, retry_after: float | None = None) -> float:
        """Seconds until the next attempt: ``min(max, initial · 2^(attempts−1))`` less the jitter, never before ``retry_after``.

        Args:
            attempts: failed attempts so far, at least 1.
            chance: a random number, 0 ≤ chance < 1.
            retry_after: what the destination asked for, in seconds.
        """
        # 2.0 ** 63 is beyond any wait; the bound keeps the power finite.
        backoff = min(self.max_seconds, self.initial_seconds * 2.0 ** min(attempts - 1, 63))
        return max(backoff * (1.0 - JITTER * chance), retry_after or 0.0)

    def exhausted(self, counted_attempts: int, elapsed_seconds: float) -> bool:
        """Whether both limits are passed.

        Args:
            counted_attempts: failed attempts without those answered 429 or 408.
            elapsed_seconds: time since the first attempt.
        """
        return counted_attempts >= self.give_up_after_attempts and elapsed_seconds > self.give_up_after_seconds


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110 §10.2.3: seconds or a date); ``None`` if it says nothing usable."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max((moment - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
