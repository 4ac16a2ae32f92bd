"""The purchases of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("CDNOW_master.txt")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line.

    Attributes:
        line: its number, from 1 after the heading; what makes the order distinct.
        customer: five digits.
        day: midnight UTC.
        quantity: CDs.
        dollars: exact.
    """

    line: int
    customer: str
    day: datetime
    quantity: int
    dollars: Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    """What must arrive in the warehouse."""

    orders: int
    customers: int
    dollars: Decimal


WHOLE_FILE: Final = Totals(69_659, 23_570, Decimal("2500315.63"))


def read_purchases(lines: int = 0) -> list[Purchase]:
    """The purchases, by customer and date as in the file.

    Args:
        lines: only the first ones; 0 takes all.
    """
    purchases: list[Purchase] = []
    _heading, *rows = FILE.read_text().splitlines()
    for number, line in enumerate(rows, 1):
        customer, day, quantity, dollars = line.split()
        moment = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        purchases.append(Purchase(number, customer, moment, int(quantity), Decimal(dollars)))
        if number == lines:
            break
    return purchases


def totals_of(purchases: Sequence[Purchase]) -> Totals:
    """Their sums."""
    return Totals(len(purchases), len({each.customer for each in purchases}), sum((each.dollars for each in purchases), Decimal(0)))
