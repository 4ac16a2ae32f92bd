"""Events that break a load, and loads that break for another reason."""

from collections.abc import Callable, Sequence

import pytest

from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.application.isolating import load_isolated
from cdi_warehouse_loader.domain.event_load import Poisoned
from cdi_warehouse_loader.domain.load import Load
from cdi_warehouse_loader.domain.rows import Item

ITEMS: Sequence[Item] = [(builders.track(message_id=f"m{number}"), 0, number) for number in range(8)]  # type: ignore[misc]  # a view's fields


class Attempts:
    """A warehouse that keeps what it is told to keep, and breaks when asked to."""

    def __init__(self, breaks: Callable[[int, Sequence[Item]], Exception | None]) -> None:
        self.kept: list[tuple[list[int], list[int]]] = []
        self.tried = 0
        self._breaks = breaks

    async def __call__(self, items: Sequence[Item], poisoned: Sequence[Poisoned], keep: bool) -> Load:
        self.tried += 1
        if (error := self._breaks(self.tried, items)) is not None:
            raise error
        if keep:
            self.kept.append(([item[2] for item in items], [one.item[2] for one in poisoned]))
        return Load("ENRICHED", len(items), (), {}, {})


async def test_an_event_that_breaks_every_load_is_kept_as_such() -> None:
    attempts = Attempts(lambda _, items: ValueError() if any(item[2] == 5 for item in items) else None)
    await load_isolated(ITEMS, attempts)
    assert attempts.kept == [([0, 1, 2, 3, 4, 6, 7], [5])]


async def test_a_load_that_breaks_once_for_no_reason_in_its_events_loses_nothing() -> None:
    attempts = Attempts(lambda tried, _: ValueError() if tried == 1 else None)
    done = await load_isolated(ITEMS, attempts)
    assert attempts.kept == [(list(range(8)), [])]
    assert done.events == 8


async def test_a_single_event_whose_load_breaks_once_is_not_thrown_away_unseen() -> None:
    attempts = Attempts(lambda tried, _: ValueError() if tried == 1 else None)
    await load_isolated(ITEMS[:1], attempts)
    assert attempts.kept == [([], [0])]


async def test_without_events_the_position_is_kept() -> None:
    attempts = Attempts(lambda *_: None)
    await load_isolated((), attempts)
    assert attempts.kept == [([], [])]


async def test_a_warehouse_that_is_away_is_told_and_nothing_is_kept() -> None:
    attempts = Attempts(lambda *_: Unavailable("warehouse", "away"))
    with pytest.raises(Unavailable):
        await load_isolated(ITEMS, attempts)
    assert not attempts.kept
