"""Who is told of which change, and that nothing between reading and following is missed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace

import pytest

from cdi_identity.domain.history import PROFILE_ID, Key
from cdi_identity.ports import StoredProfile
from cdi_identity.watching import WatchedProfiles, Watchers
from cdi_kernel.faults import NotFound, RateLimited, Unavailable
from cdi_testing import eventually

ADA = StoredProfile("p1", "w", [("w", "user_id", "ada")], [b""], [], 1)
KEY = ("user_id", "ada")


class Shelf:
    """Profiles by key, as ``Profiles.one`` reads them; ``between`` happens after the next reading."""

    def __init__(self, profiles: Mapping[Key, StoredProfile]) -> None:
        self.profiles = dict(profiles)
        self.reads = 0
        self.between = lambda: None

    async def one(self, workspace_id: str, key: Key | None) -> StoredProfile:
        self.reads += 1
        found = self.profiles.get(key)
        between, self.between = self.between, lambda: None
        between()
        if found is None:
            raise NotFound(0, "nobody")
        return found


def watching(shelf: Shelf, watchers: Watchers, key: Key = KEY) -> AsyncIterator[StoredProfile]:
    return WatchedProfiles(shelf, watchers).watch("w", key)


async def test_a_change_that_comes_before_the_profile_is_followed_is_in_the_first_answer() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers()

    def change() -> None:
        shelf.profiles[KEY] = replace(ADA, documents=[b"{}"])
        watchers.changed(["p1"])

    shelf.between = change
    async with aclosing(watching(shelf, watchers)) as answers:
        assert (await anext(answers)).documents == [b"{}"]


async def test_many_quick_changes_are_one_answer_with_the_newest_state() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers()
    async with aclosing(watching(shelf, watchers)) as answers:
        await anext(answers)
        reads = shelf.reads
        for number in range(100):
            shelf.profiles[KEY] = replace(ADA, documents=[b"%d" % number])
            watchers.changed(["p1"])
        assert (await anext(answers)).documents == [b"99"]
        assert shelf.reads == reads + 1


async def test_the_same_state_is_not_told_twice() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers()
    async with aclosing(watching(shelf, watchers)) as answers:
        await anext(answers)
        waiting = asyncio.ensure_future(anext(answers))
        reads = shelf.reads
        watchers.changed(["p1"])
        await eventually(lambda: shelf.reads > reads)
        watchers.changed(["other"])
        shelf.profiles[KEY] = replace(ADA, documents=[b"new"])
        watchers.missed()
        assert (await waiting).documents == [b"new"]


async def test_the_profile_that_a_key_moves_to_is_followed_and_the_former_one_is_not() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers()
    async with aclosing(watching(shelf, watchers)) as answers:
        await anext(answers)
        shelf.profiles[KEY] = replace(ADA, profile_id="p2")
        watchers.changed(["p1", "p2"])
        assert (await anext(answers)).profile_id == "p2"
        waiting = asyncio.ensure_future(anext(answers))
        shelf.profiles[KEY] = replace(ADA, profile_id="p2", documents=[b"new"])
        watchers.changed(["p2"])
        assert (await waiting).documents == [b"new"]
        assert list(watchers._by_profile) == ["p2"]


async def test_a_merged_id_is_followed_beside_its_canonical_one() -> None:
    key = (PROFILE_ID, "old")
    shelf, watchers = Shelf({key: ADA}), Watchers()
    async with aclosing(watching(shelf, watchers, key)) as answers:
        await anext(answers)
        waiting = asyncio.ensure_future(anext(answers))
        shelf.profiles[key] = replace(ADA, profile_id="old")
        watchers.changed(["old"])
        assert (await waiting).profile_id == "old"


async def test_watchers_are_bounded_and_leave_nothing_behind() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers(limit=1)
    async with aclosing(watching(shelf, watchers)) as first:
        await anext(first)
        with pytest.raises(RateLimited):
            await anext(watching(shelf, watchers))
    assert not watchers
    assert not watchers._by_profile
    async with aclosing(watching(shelf, watchers)) as second:
        await anext(second)


async def test_a_stopping_replica_and_a_profile_that_is_gone_end_the_watching() -> None:
    shelf, watchers = Shelf({KEY: ADA}), Watchers()
    async with aclosing(watching(shelf, watchers)) as answers:
        await anext(answers)
        del shelf.profiles[KEY]
        watchers.missed()
        with pytest.raises(NotFound):
            await anext(answers)
    shelf.profiles[KEY] = ADA
    async with aclosing(watching(shelf, watchers)) as answers:
        await anext(answers)
        watchers.close()
        with pytest.raises(Unavailable):
            await anext(answers)
