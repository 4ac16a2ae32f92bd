"""Who waits for whom when single profiles are asked for at the same time, and who gets which error."""

import asyncio
from collections.abc import Sequence

import pytest

from cdi_identity.ports import StoredProfile
from cdi_identity.store.gathering import MAX_KEYS, Asked, Gathering
from cdi_kernel.faults import Unavailable
from cdi_testing import eventually


def asked(name: str) -> Asked:
    return "w", "user_id", name


class Statements:
    """What is asked for, one list per statement; each ends when it is told to. There is everybody but ``nobody``."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []
        self.left_out: set[str] = set()
        self._ends: list[asyncio.Future[None]] = []

    async def read(self, keys: Sequence[Asked]) -> dict[int, StoredProfile | None]:
        names = [name for _, _, name in keys]
        self.names.append(names)
        self._ends.append(asyncio.get_running_loop().create_future())
        await self._ends[-1]
        profiles = {name: None if name == "nobody" else StoredProfile(name, "w", [], [], [], 1) for name in names}
        return {place: profiles[name] for place, name in enumerate(names) if place == 0 or name not in self.left_out}

    async def end(self, number: int, error: Exception | None = None) -> None:
        """Ends the statement of this number once it is under way."""
        await eventually(lambda: len(self._ends) > number)
        if error is None:
            self._ends[number].set_result(None)
        else:
            self._ends[number].set_exception(error)


async def ask(gathering: Gathering, *names: str) -> list[asyncio.Task[StoredProfile | None]]:
    """Callers who have all asked."""
    callers = [asyncio.create_task(gathering.one(asked(name))) for name in names]
    await asyncio.sleep(0)
    return callers


async def ids(callers: Sequence[asyncio.Task[StoredProfile | None]]) -> list[str | None]:
    return [profile and profile.profile_id for profile in await asyncio.wait_for(asyncio.gather(*callers), 5)]


async def test_those_who_come_while_a_statement_is_under_way_are_answered_by_the_next_one() -> None:
    statements = Statements()
    gathering = Gathering(statements.read)
    for number in (0, 2):
        [first] = await ask(gathering, "ada")
        others = await ask(gathering, "bob", "nobody", "ada")
        assert statements.names[number:] == [["ada"]]
        await statements.end(number)
        assert await ids([first]) == ["ada"]
        await statements.end(number + 1)
        assert await ids(others) == ["bob", None, "ada"]
        assert statements.names[number + 1 :] == [["bob", "nobody", "ada"]]


async def test_a_statement_has_a_bounded_number_of_keys() -> None:
    statements = Statements()
    callers = await ask(Gathering(statements.read), *map(str, range(2 * MAX_KEYS + 1)))
    for number in range(3):
        await statements.end(number)
    assert await ids(callers) == [str(number) for number in range(2 * MAX_KEYS + 1)]
    assert list(map(len, statements.names)) == [1, MAX_KEYS, MAX_KEYS]


async def test_what_does_not_fit_is_asked_for_again_before_those_who_came_later() -> None:
    statements = Statements()
    statements.left_out = {"large", "huge"}
    gathering = Gathering(statements.read)
    callers = await ask(gathering, "ada", "bob", "large", "huge", "eve")
    await statements.end(0)
    await eventually(lambda: len(statements.names) == 2)
    callers += await ask(gathering, "late")
    for number in (1, 2, 3):
        await statements.end(number)
    assert await ids(callers) == ["ada", "bob", "large", "huge", "eve", "late"]
    assert statements.names == [["ada"], ["bob", "large", "huge", "eve"], ["large", "huge", "late"], ["huge"]]


async def test_who_leaves_while_he_reads_for_himself_takes_nobody_along() -> None:
    statements = Statements()
    reading, *others = await ask(Gathering(statements.read), "ada", "bob", "eve")
    reading.cancel()
    await statements.end(1)
    assert await ids(others) == ["bob", "eve"]
    assert reading.cancelled()


async def test_for_who_leaves_while_he_waits_nothing_is_read() -> None:
    statements = Statements()
    first, leaving, last = await ask(Gathering(statements.read), "ada", "bob", "eve")
    leaving.cancel()
    for number in (0, 1):
        await statements.end(number)
    assert await ids([first, last]) == ["ada", "eve"]
    assert statements.names == [["ada"], ["eve"]]


async def test_who_leaves_while_his_answer_is_read_hinders_nobody() -> None:
    statements = Statements()
    gathering = Gathering(statements.read)
    first, leaving, *others = await ask(gathering, "ada", "bob", "eve", "joe")
    await statements.end(0)
    await eventually(lambda: len(statements.names) == 2)
    leaving.cancel()
    await statements.end(1)
    assert await ids([first, *others]) == ["ada", "eve", "joe"]
    [later] = await ask(gathering, "ann")
    await statements.end(2)
    assert await ids([later]) == ["ann"]


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_only_those_who_waited_for_a_statement_get_its_error(failing: int) -> None:
    statements = Statements()
    gathering = Gathering(statements.read)
    groups = [await ask(gathering, "ada"), await ask(gathering, "bob", "eve")]
    for number in range(3):
        await statements.end(number, Unavailable("database", "gone") if number == failing else None)
        if number == 0:
            await eventually(lambda: len(statements.names) == 2)
            groups.append(await ask(gathering, "joe"))
    assert statements.names == [["ada"], ["bob", "eve"], ["joe"]]
    for number, callers in enumerate(groups):
        if number == failing:
            answers = await asyncio.gather(*callers, return_exceptions=True)
            assert [type(answer) for answer in answers] == [Unavailable] * len(callers)
        else:
            assert await ids(callers) == statements.names[number]
