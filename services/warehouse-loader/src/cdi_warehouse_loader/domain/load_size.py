"""How many events one load may hold.

A table costs a load about as much as a hundred events, however few its rows are. So loads that touch hundreds of tables may be larger, as
far as events are there: nothing waits for them.
"""

from __future__ import annotations

from typing import Final

ENOUGH_EVENTS: Final = 4_000
"""A load that has so many waits for no more: what it costs whatever its size is a small part by then."""

EVENTS_PER_TABLE: Final = 160
"""Events that a load may hold for each table that the one before has touched."""

LOADS_UNTIL_LARGER: Final = 100
"""Loads after one that was too large until one twice as large is tried: doing one again in halves costs less than small ones for ever."""

GROWTH: Final = 20
"""A load holds at most so many times what is usual, the measure of the loader's memory."""

MOST_EVENTS: Final = 80_000
"""No load grows beyond this, however many are usual: at five hundred tables more would save little, and take memory."""


class LoadSize:
    """Follows what loads find.

    Args:
        usual: events of a load that touches few tables.
    """

    def __init__(self, usual: int) -> None:
        self._limit = max(usual, min(usual * GROWTH, MOST_EVENTS))
        self._usual = usual
        self._most = self._limit
        self._now = usual
        self._loads = 0

    def now(self) -> int:
        """Events that the next load may hold."""
        return self._now

    def loaded(self, tables: int) -> None:
        """A load is done that touched so many tables."""
        self._loads += 1
        if self._loads == LOADS_UNTIL_LARGER:
            self._most, self._loads = min(self._most * 2, self._limit), 0
        self._now = min(max(self._usual, tables * EVENTS_PER_TABLE), self._most)

    def was_too_large(self, events: int) -> None:
        """The warehouse had not enough memory for a load of so many events: for a while none is as large, unless it is usual."""
        self._most = max(self._usual, min(self._most, events // 2))
        self._now = min(self._now, self._most)
        self._loads = 0
