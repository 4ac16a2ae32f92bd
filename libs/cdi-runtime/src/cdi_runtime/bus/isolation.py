"""Bisecting: one poisonous item must not cost the others of its batch, and a bad deploy must not cost the stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, Rejected
from cdi_kernel.ids import uuid7
from cdi_runtime.bus.message import Halt
from cdi_runtime.telemetry import logger

I = TypeVar("I")  # noqa: E741 - item
R = TypeVar("R")

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When rejections stop the reader instead of draining the stream into dead letters.

    Attributes:
        max_ratio: stop when a larger share than this was rejected …
        min_rejected: … and at least so many.
    """

    max_ratio: float = 0.9
    min_rejected: int = 50

    def check(self, rejected: int, handled: int) -> None:
        """Does nothing while the numbers are tolerable.

        Raises:
            Halt: they are not.
        """
        if rejected >= self.min_rejected and rejected > self.max_ratio * handled:
            raise Halt(rejected, handled)


async def isolate(
    items: Sequence[I], process: Callable[[Sequence[I]], Awaitable[Sequence[R]]], *, rule: StopRule | None = None, stage: str = ""
) -> list[R | Fault]:
    """Processes items together, and alone where that fails.

    When ``process`` raises, the items are halved until the poisonous one is alone, so ``process`` must be idempotent and may see an item
    several times. One poisonous item among n costs about 2·log₂ n further calls.

    Args:
        items: in order.
        process: gives one result per item, in order.
        rule: when to give up on the whole batch.
        stage: named in the fault's metadata.

    Returns:
        Per item, in order, its result or the fault that it causes: its own terminal fault, or ``poison_event`` for a bug.

    Raises:
        Fault: a retryable one; nothing is wrong with the items.
        Halt: nearly every item is poisonous.
    """
    rule = rule or StopRule()
    results: list[R | Fault] = []
    poisoned = 0
    waiting: list[Sequence[I]] = [items] if items else []
    while waiting:
        part = waiting.pop()
        try:
            done = await process(part)
        except Halt:
            raise
        except Exception as error:  # the engine is the outermost catch: whatever a stage raises must not stop the flow
            if isinstance(error, Fault) and error.retryable:
                raise
            if len(part) > 1:
                middle = len(part) // 2
                waiting += (part[middle:], part[:middle])
                continue
            results.append(poison(error, stage))
            poisoned += 1
            continue
        if len(done) != len(part):
            raise AssertionError(f"{len(part)} items gave {len(done)} results")
        results.extend(done)
    rule.check(poisoned, len(items))
    return results


def poison(error: Exception, stage: str) -> Fault:
    """The fault of an item on which processing failed; a bug is logged under the correlation id that the fault carries."""
    if isinstance(error, Fault):
        return error
    correlation_id = str(uuid7())
    _log.error("bus.poison", stage=stage, correlation_id=correlation_id, exc_info=error)
    return Rejected(
        error_pb2.ERROR_REASON_POISON_EVENT,
        "processing failed; the log has the rest under the correlation id",
        metadata={"stage": stage, "correlation_id": correlation_id},
    )
