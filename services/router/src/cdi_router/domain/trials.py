"""What was tried in vain, and when it is tried next: of a person's events and of calls that delete a person alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cdi_router.domain.answer import Answer
from cdi_router.domain.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Trials:
    """The failed attempts of one thing that is to be sent.

    Attributes:
        due: when it is tried next.
        attempts: failed attempts.
        counted_attempts: those of them that count towards giving up.
        first_attempt: time of the first of them; ``None`` when it was not tried yet.
        answer: the last answer.
    """

    due: datetime
    attempts: int = 0
    counted_attempts: int = 0
    first_attempt: datetime | None = None
    answer: Answer | None = None

    def failed(self, answer: Answer, policy: RetryPolicy, now: datetime, chance: float) -> Trials:
        """The trials after one more failed attempt.

        Args:
            answer: what came back.
            policy: when to try again.
            now: the time.
            chance: a random number, 0 ≤ chance < 1.
        """
        attempts = self.attempts + 1
        due = now + timedelta(seconds=policy.wait(attempts, chance, answer.retry_after))
        return Trials(due, attempts, self.counted_attempts + answer.counts, self.first_attempt or now, answer)

    def exhausted(self, policy: RetryPolicy, now: datetime) -> bool:
        """Whether to give up: both limits are passed and the last answer was not merely "later"."""
        if self.answer is None or not self.answer.counts or self.first_attempt is None:
            return False
        return policy.exhausted(self.counted_attempts, (now - self.first_attempt).total_seconds())
