"""Restarts services that have ended by themselves, with backoff. For `cdi up`; tests want to see a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cdi_cli.suite.suite import Suite

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 30.0
"""A service that has run for so long starts with the first wait again."""


@dataclass(slots=True)
class _Watched:
    launched: float
    wait: float = FIRST_WAIT_SECONDS
    due: float | None = None
    announced: bool = True


class Supervisor:
    """Looks after the services of a started suite; ``tick`` is called from the thread that started it.

    Args:
        suite: the suite.
        clock: monotonic seconds.
    """

    def __init__(self, suite: Suite, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._suite = suite
        self._clock = clock
        self._watched = {name: _Watched(clock()) for name in suite.services}
        self.restarts = dict.fromkeys(suite.services, 0)
        """How often each service was started again."""

    def tick(self) -> list[str]:
        """Start what is due and note what has ended; never waits. Returns one line per change, for people."""
        return [line for name in self._watched if (line := self._look_at(name))]

    def _look_at(self, name: str) -> str:
        process, watched, now = self._suite.service(name), self._watched[name], self._clock()
        if process.running:
            if not watched.announced and process.started():
                watched.announced = True
                self._suite.write_state()
                return f"{name} runs again (pid {process.pid})"
            if now - watched.launched > STEADY_SECONDS:
                watched.wait = FIRST_WAIT_SECONDS
            return ""
        if watched.due is None:
            watched.due = now + watched.wait
            watched.wait = min(watched.wait * 2, LONGEST_WAIT_SECONDS)
            return f"{name} ended with exit code {process.process.exit_code}; log: {process.log_file}"
        if now < watched.due:
            return ""
        process.launch()
        self.restarts[name] += 1
        watched.launched, watched.due, watched.announced = now, None, False
        return f"{name} starts again (restart {self.restarts[name]})"
