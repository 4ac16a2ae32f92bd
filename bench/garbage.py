"""Garbage collection in processes that measure, or are measured: a collection of what a load generator prepared stops it for 90 ms."""

from __future__ import annotations

import atexit
import gc


def calm() -> None:
    """Leaves what is there now out of every later collection, and collects seldom, as the runtime does in a service."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # Libraries complain at the end of what was never collected.
    atexit.register(gc.unfreeze)
