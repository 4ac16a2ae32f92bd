"""``eventually`` returns what became true and says what did not."""

import pytest

from cdi_testing import eventually, eventually_sync


async def test_returns_the_first_true_answer_of_plain_and_async_predicates() -> None:
    answers = iter([0, 0, 7, 0, 9])

    async def ask() -> int:
        return next(answers)

    assert await eventually(lambda: next(answers)) == 7
    assert await eventually(ask) == 9


async def test_failed_assertions_count_as_not_yet() -> None:
    answers = iter([1, 2, 3])

    def three() -> bool:
        assert next(answers) == 3
        return True

    assert await eventually(three)


async def test_gives_up_with_the_last_answer() -> None:
    with pytest.raises(AssertionError, match=r"within 0.05 s; the last answer was \[\]"):
        await eventually(list, within=0.05)
    with pytest.raises(AssertionError, match="the last answer was 0"):
        eventually_sync(int, within=0.05)
