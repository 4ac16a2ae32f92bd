"""The ledger of clean rooms: what was asked, what was paid, and whether a partner can pay more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import RateLimited
from cdi_warehouse_loader.domain.clean_room import MICRO
from cdi_warehouse_loader.domain.release import Answer


class Outcome(StrEnum):
    """What became of a query; its value is what the ledger stores."""

    PAID = "paid"
    ANSWERED = "answered"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """A query that was paid.

    Attributes:
        query_id: rises with time; 0 before it is stored.
        workspace_id: the workspace.
        clean_room: name of the clean room.
        version: of its document.
        partner: who asked.
        asked_us: when it was paid, microseconds since 1970.
        query: as JSON.
        epsilon: what it cost, in millionths.
        outcome: what became of it.
        answered_us: when the answer was computed; 0 before.
        answer: ``None`` before.
        groups: shown in the answer.
        repeats: how often it was given again.
    """

    query_id: int
    workspace_id: str
    clean_room: str
    version: int
    partner: str
    asked_us: int
    query: str
    epsilon: int
    outcome: Outcome = Outcome.PAID
    answered_us: int = 0
    answer: Answer | None = None
    groups: int = 0
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a partner may spend in a period and has spent in it, in millionths; the period in microseconds since 1970."""

    partner: str
    epsilon: int
    spent: int
    start_us: int
    end_us: int

    @property
    def left(self) -> int:
        """What it may still spend; a document can have made the budget smaller than what was spent."""
        return max(0, self.epsilon - self.spent)


def check_budget(budget: Budget, epsilon: int, now_us: int) -> None:
    """Whether a query can be paid.

    Raises:
        RateLimited: not in this period.
    """
    if epsilon <= budget.left:
        return
    renews = datetime.fromtimestamp(budget.end_us / 1_000_000, UTC).isoformat()
    raise RateLimited(
        error_pb2.ERROR_REASON_PRIVACY_BUDGET_SPENT,
        f"the query costs {epsilon / MICRO:g} of epsilon, {budget.left / MICRO:g} are left until {renews}",
        metadata={"subject": budget.partner, "partner": budget.partner, "epsilon_left": f"{budget.left / MICRO:g}", "renews_at": renews},
        retry_after=(budget.end_us - now_us) / 1_000_000,
    )
