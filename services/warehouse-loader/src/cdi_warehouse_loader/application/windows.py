"""Filling in windows, which grow and shrink with what is found in them, and with the memory for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.application.questions import MOST_ROWS
from cdi_warehouse_loader.faults import OutOfMemory

_ROWS: Final = MOST_ROWS // 5
"""About so many rows in one load."""


async def through_windows(start: int, end: int, first: int, fill: Callable[[int, int], Awaitable[int]]) -> int:
    """Fills from ``start`` to ``end``, or a little further.

    Args:
        start: where the first window begins.
        end: where the last one may begin at the latest.
        first: size of the first one.
        fill: brings what lies from a place to before another one; tells how many rows that was.

    Returns:
        Where the next window would begin.

    Raises:
        TooLarge: a window of one place holds too much.
        OutOfMemory: the warehouse has not enough for it.
    """
    window = first
    while start < end:
        try:
            found = await fill(start, start + window)
        except (TooLarge, OutOfMemory):
            if window == 1:
                raise
            window = max(1, window // 4)
            continue
        start += window
        if found < _ROWS // 2:
            window *= 2
    return start
