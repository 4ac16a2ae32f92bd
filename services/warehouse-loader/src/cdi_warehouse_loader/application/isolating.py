"""Loading events although one of them may break the load: it is found by bisecting with loads that are taken back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from cdi_kernel.faults import Fault
from cdi_runtime.bus import isolate
from cdi_warehouse_loader.domain.event_load import STAGE, Poisoned
from cdi_warehouse_loader.domain.load import Load
from cdi_warehouse_loader.domain.rows import Item

Attempt = Callable[[Sequence[Item], Sequence[Poisoned], bool], Awaitable[Load]]
"""Loads events, and others as what breaks a load; keeps it, or takes it back. Returns what was done."""


async def load_isolated(items: Sequence[Item], attempt: Attempt) -> Load:
    """Loads all events that can be loaded, and the others as what they are, in one load that is kept.

    Args:
        items: the events.
        attempt: tries a load.

    Raises:
        Halt: nearly all events break the load.
        Fault: the warehouse cannot now.
    """
    whole = len(items)
    done: list[Load] = []

    async def attempt_part(part: Sequence[Item]) -> Sequence[None]:
        done[:] = [await attempt(part, (), len(part) == whole)]
        return [None] * len(part)

    results = await isolate(items, attempt_part, stage=STAGE)
    poisoned = [Poisoned(item, result) for item, result in zip(items, results, strict=True) if isinstance(result, Fault)]
    if poisoned or not items:
        good = [item for item, result in zip(items, results, strict=True) if result is None]
        return await attempt(good, poisoned, True)
    return done[0]
