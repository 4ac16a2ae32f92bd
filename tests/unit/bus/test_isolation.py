"""Bisecting: every item gets its own result or its own fault, whatever the others do."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, Rejected, Unavailable
from cdi_runtime.bus import Halt, StopRule, isolate

LENIENT = StopRule(max_ratio=1.0)


@given(st.lists(st.booleans(), max_size=60))
async def test_the_poisonous_items_and_only_they_get_a_fault(poisonous: list[bool]) -> None:
    async def process(items: Sequence[int]) -> list[int]:
        if any(poisonous[item] for item in items):
            raise ZeroDivisionError
        return [item * 10 for item in items]

    results = await isolate(range(len(poisonous)), process, rule=LENIENT)
    assert [isinstance(result, Fault) for result in results] == poisonous
    assert all(result == index * 10 for index, result in enumerate(results) if not isinstance(result, Fault))


async def test_one_poisonous_item_costs_few_further_calls() -> None:
    calls = 0

    async def process(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if 700 in items:
            raise ZeroDivisionError
        return list(items)

    await isolate(range(1024), process)
    assert calls <= 2 * 10 + 1


async def test_a_terminal_fault_stays_what_it_is_and_a_bug_becomes_poison() -> None:
    async def process(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise Rejected(error_pb2.ERROR_REASON_INVALID_TIME, "no")
        if 2 in items:
            raise KeyError("secret")
        return list(items)

    ok, terminal, poison = await isolate([0, 1, 2], process, stage="enrichment")
    assert ok == 0
    assert isinstance(terminal, Fault)
    assert isinstance(poison, Fault)
    assert (terminal.reason_name, poison.reason_name) == ("invalid_time", "poison_event")
    assert poison.metadata["stage"] == "enrichment"
    assert "secret" not in str(poison)


async def test_a_retryable_fault_is_nobodys_poison() -> None:
    async def process(items: Sequence[int]) -> list[int]:
        raise Unavailable("consent", "away")

    with pytest.raises(Unavailable):
        await isolate([1, 2, 3], process)


async def test_a_bad_deploy_halts_instead_of_rejecting_everything() -> None:
    async def process(items: Sequence[int]) -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(Halt) as halted:
        await isolate(range(200), process)
    assert (halted.value.rejected, halted.value.handled) == (200, 200)


async def test_a_stage_that_loses_an_item_is_a_bug() -> None:
    async def process(items: Sequence[int]) -> list[int]:
        return list(items)[1:]

    with pytest.raises(AssertionError):
        await isolate([1, 2], process)
