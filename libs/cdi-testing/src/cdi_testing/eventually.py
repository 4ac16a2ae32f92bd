"""Waiting for something to become true: the only way in which a test waits.

The deadline tells what hangs from what comes; how fast something is belongs into a benchmark. So it is long enough for a busy machine, and
shorter than a minute: what a reader leaves lying, JetStream delivers again after 60 s, and a test must not take that for the reader's work.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

POLL_SECONDS: Final = 0.02
WITHIN_SECONDS: Final = 45.0

T = TypeVar("T")


async def eventually(predicate: Callable[[], T | Awaitable[T]], *, within: float = WITHIN_SECONDS) -> T:
    """Poll a predicate until it answers something true, and return that.

    Args:
        predicate: plain or async. A failed ``assert`` inside it counts as "not yet".
        within: seconds.

    Raises:
        AssertionError: the time is over; carries the last answer or the last failed assertion.
    """
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        answer: T | None = None
        try:
            given = predicate()
            answer = await given if inspect.isawaitable(given) else given
        except AssertionError as error:
            failure = error
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(_text(answer, within)) from failure
        await asyncio.sleep(POLL_SECONDS)


def eventually_sync(predicate: Callable[[], T], *, within: float = WITHIN_SECONDS) -> T:
    """``eventually`` for tests without an event loop."""
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        answer: T | None = None
        try:
            answer = predicate()
        except AssertionError as error:
            failure = error
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(_text(answer, within)) from failure
        time.sleep(POLL_SECONDS)


def _text(answer: object, within: float) -> str:
    return f"did not become true within {within:g} s; the last answer was {answer!r}"
