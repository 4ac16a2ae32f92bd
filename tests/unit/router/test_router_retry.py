"""When to try again, when to give up, what an answer means, when a destination counts as down."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_router.domain.answer import Answer, Verdict
from cdi_router.domain.breaker import TOLERATED, Breaker
from cdi_router.domain.retry import JITTER, MAX_RETRY_AFTER_SECONDS, RetryPolicy, parse_retry_after
from cdi_router.domain.trials import Trials

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
PEOPLE = [bytes([n]) for n in range(10)]


def test_the_schedule_doubles_up_to_the_longest_wait() -> None:
    policy = RetryPolicy()
    assert [policy.wait(attempt, 0.0) for attempt in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 5_000))
def test_a_wait_is_bounded_and_never_before_retry_after(attempts: int, chance: float, asked: float | None) -> None:
    policy = RetryPolicy()
    wait = policy.wait(attempts, chance, asked)
    plain = policy.wait(attempts, 0.0)
    assert wait >= (asked or 0.0)
    assert plain * (1 - JITTER) <= wait <= max(plain, asked or 0.0)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (301, Verdict.REFUSED),
        (304, Verdict.REFUSED),
        (400, Verdict.REFUSED),
        (401, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (413, Verdict.REFUSED),
        (408, Verdict.FAILED),
        (429, Verdict.FAILED),
        (500, Verdict.FAILED),
        (503, Verdict.FAILED),
        (599, Verdict.FAILED),
        (0, Verdict.FAILED),
    ],
)
def test_answers(status: int, verdict: Verdict) -> None:
    assert Answer(status).verdict is verdict


def test_only_both_limits_together_give_up() -> None:
    policy = RetryPolicy(give_up_after_seconds=100, give_up_after_attempts=3)
    trials = Trials(NOW)
    for attempt, (seconds, exhausted) in enumerate([(0, False), (200, False), (300, True)], start=1):
        now = NOW + timedelta(seconds=seconds)
        trials = trials.failed(Answer(503), policy, now, 0.0)
        assert trials.attempts == attempt
        assert trials.exhausted(policy, now) is exhausted
    quick = Trials(NOW)
    for _ in range(50):
        quick = quick.failed(Answer(500), policy, NOW, 0.0)
    assert not quick.exhausted(policy, NOW)


@pytest.mark.parametrize("status", [429, 408])
def test_later_is_never_given_up(status: int) -> None:
    policy = RetryPolicy(give_up_after_seconds=1, give_up_after_attempts=1)
    trials = Trials(NOW)
    for day in range(5):
        trials = trials.failed(Answer(status), policy, NOW + timedelta(days=day), 0.0)
        assert not trials.exhausted(policy, NOW + timedelta(days=day))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("99999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Thu, 15 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 15 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 15 Jan 2099 11:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


def test_a_few_failing_people_are_not_a_destination_that_is_down() -> None:
    breaker = Breaker(RetryPolicy())
    for _ in range(5):
        breaker.failed(PEOPLE[:TOLERATED], 0.0, 0.0, None)
    assert not breaker.down
    assert breaker.pause(0.0) == 0.0
    breaker.answered()
    breaker.failed(PEOPLE[TOLERATED : TOLERATED * 2], 0.0, 0.0, None)
    assert not breaker.down


def test_one_more_is_down_until_it_answers() -> None:
    breaker = Breaker(RetryPolicy())
    breaker.failed(PEOPLE, 0.0, 0.0, None)
    assert breaker.down
    assert breaker.pause(4.0) == 6.0
    # Requests that were already under way do not lengthen the pause.
    breaker.failed(PEOPLE, 5.0, 0.0, None)
    assert breaker.pause(5.0) == 5.0
    assert breaker.pause(10.0) == 0.0
    breaker.failed(PEOPLE[:1], 10.0, 0.0, None)
    assert breaker.pause(10.0) == 20.0
    breaker.failed(PEOPLE[:1], 30.0, 0.0, 1_000.0)
    assert breaker.pause(30.0) == 1_000.0
    breaker.answered()
    assert not breaker.down
    assert breaker.pause(30.0) == 0.0
