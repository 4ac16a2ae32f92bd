"""The use case of retention: decisions that changed nothing are deleted when they are old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from cdi_identity.ports import DecisionRetention
from cdi_kernel.faults import Transient
from cdi_runtime.telemetry.logs import logger

PAUSE_SECONDS: Final = 600.0
"""Between two looks for decisions that have become old."""

log = logger(__name__)


async def retain(store: DecisionRetention, days: int, now_us: Callable[[], int]) -> None:
    """Keeps such decisions for some days, until cancelled. Every replica may do it at once.

    Args:
        store: the decisions.
        days: how long they are kept, at least.
        now_us: the clock, microseconds since 1970.
    """
    while True:
        before = datetime.fromtimestamp(now_us() / 1_000_000, UTC) - timedelta(days=days)
        try:
            while await store.forget(before):
                pass
        except Transient as fault:
            log.warning("retention.waiting", reason=fault.reason_name, seconds=PAUSE_SECONDS)
        await asyncio.sleep(PAUSE_SECONDS)
