"""What a destination's answer to one request means (source: RudderStack's router, ``reference/routing``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_ANSWER_BYTES: Final = 2_048
"""How much of an answer's body is kept."""

_RETRYABLE: Final = frozenset({408, 429})


class Verdict(Enum):
    """What follows from an answer."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        body: the first 2 KiB, for people; never logged.
        failure: why there was no answer, in a word: ``timeout``, ``connection``.
        retry_after: seconds that the destination asked to wait.
    """

    status: int
    body: str = ""
    failure: str = ""
    retry_after: float | None = None

    @property
    def verdict(self) -> Verdict:
        """2xx is delivered; no answer, 408, 429 and from 500 on may succeed later; the rest is final."""
        if 200 <= self.status < 300:
            return Verdict.DELIVERED
        if self.status in _RETRYABLE or self.status >= 500 or self.status < 100:
            return Verdict.FAILED
        return Verdict.REFUSED

    @property
    def counts(self) -> bool:
        """Whether the attempt brings the event nearer to being given up. 429 and 408 say "later", not "no"."""
        return self.status not in _RETRYABLE

    @property
    def may_concern_one_event(self) -> bool:
        """Whether a refusal may be about one event of the request. A redirect is about the address."""
        return self.status >= 400

    def describe(self) -> str:
        """The answer in a few words without its content."""
        return f"status {self.status}" if self.status else f"no answer ({self.failure or 'unknown'})"
