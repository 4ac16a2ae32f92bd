"""What people did, made of their purchases: page views before the first one, the moment they became known, orders, a change of mind.

Everything follows from the file, so that each run sends the same events with the same message ids.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, Literal

from cdnow.purchases import Purchase

Kind = Literal["page", "identify", "order", "withdraw"]

PAGES_BEFORE: Final = (0, 1, 1, 2, 2, 3)
"""Page views before the first purchase, by customer."""

WITHDRAW_ONE_IN: Final = 20
"""5 % of the customers withdraw their consent to advertising."""

_PAGES: Final = (
    ("Home", "/?utm_source=newsletter&utm_medium=email&utm_campaign=new-releases", "https://mail.example/"),
    ("Jazz", "/jazz?gclid=Cj0KCQ", "https://www.google.com/search?q=jazz+cds"),
    ("Artist", "/artists/miles-davis", "https://duckduckgo.com/"),
    ("Charts", "/charts?utm_source=facebook&utm_medium=social&utm_campaign=charts", "https://www.facebook.com/"),
    ("Cart", "/cart", "https://shop.example/charts"),
)
_AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148",
)
_ADDRESSES: Final = ("81.2.69.142", "89.160.20.112", "216.160.83.56", "175.16.199.1", "2.125.160.216")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of one person.

    Attributes:
        time: when it happened.
        kind: what.
        customer: whose.
        message_id: the same in every run; that of an order is made from its line.
        number: of the page view, from 0.
        purchase: of an order.
        consent: answers that the event carries; none for those that rely on the ledger.
    """

    time: datetime
    kind: Kind
    customer: str
    message_id: str
    number: int = 0
    purchase: Purchase | None = None
    consent: tuple[tuple[str, bool], ...] = ()

    @property
    def anonymous_id(self) -> str:
        """The browser's id: on all events of the person, so that they stay in one partition and in order."""
        return f"browser-{self.customer}"

    @property
    def context(self) -> dict[str, Any]:
        """What the browser knows."""
        dice = _dice(self.customer)
        context: dict[str, Any] = {"userAgent": _AGENTS[dice % len(_AGENTS)], "ip": _ADDRESSES[dice % len(_ADDRESSES)]}
        if self.kind == "page":
            title, path, referrer = _PAGES[(dice + self.number) % len(_PAGES)]
            context["page"] = {"title": title, "path": path.partition("?")[0], "url": f"https://shop.example{path}", "referrer": referrer}
        if self.consent:
            context["consent"] = {"categoryPreferences": dict(self.consent)}
        return context


def steps_of(purchases: Sequence[Purchase]) -> list[Step]:
    """The events of all people, in the order in which they happened."""
    steps = [step for _, own in groupby(purchases, key=lambda each: each.customer) for step in _of_one(list(own))]
    return sorted(steps, key=lambda step: (step.time, step.message_id))


def withdrawals(steps: Iterable[Step]) -> int:
    """How many people withdraw."""
    return sum(step.kind == "withdraw" for step in steps)


def _of_one(purchases: list[Purchase]) -> Iterator[Step]:
    customer = purchases[0].customer
    dice = _dice(customer)
    orders = _timed(purchases)
    first = orders[0][0]
    agreed = (("analytics", True), ("advertising", True))
    pages = PAGES_BEFORE[dice % len(PAGES_BEFORE)]
    for number in range(pages):
        before = timedelta(minutes=10 + 35 * (pages - number) + dice % 30)
        yield Step(first - before, "page", customer, f"cdnow-page-{customer}-{number}", number=number, consent=agreed)
    yield Step(first - timedelta(minutes=2), "identify", customer, f"cdnow-identify-{customer}", consent=agreed)
    withdraws = dice // len(PAGES_BEFORE) % WITHDRAW_ONE_IN == 0
    changes_mind = (len(orders) + 1) // 2 if withdraws else len(orders) + 1
    for number, (time, purchase) in enumerate(orders, 1):
        consent = agreed if number <= changes_mind else ()
        yield Step(time, "order", customer, f"cdnow-line-{purchase.line}", purchase=purchase, consent=consent)
        if number == changes_mind:
            refused = (("analytics", True), ("advertising", False))
            yield Step(time + timedelta(seconds=30), "withdraw", customer, f"cdnow-withdraw-{customer}", consent=refused)


def _timed(purchases: Sequence[Purchase]) -> list[tuple[datetime, Purchase]]:
    """The purchases at noon of their day, those of one day a minute apart."""
    timed: list[tuple[datetime, Purchase]] = []
    for _, same_day in groupby(purchases, key=lambda each: each.day):
        timed += [(each.day + timedelta(hours=12, minutes=number), each) for number, each in enumerate(same_day)]
    return timed


def _dice(customer: str) -> int:
    """A number that looks random and is always the same."""
    return zlib.crc32(customer.encode())
