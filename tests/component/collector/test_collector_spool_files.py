"""The spool on a real disk, without the collector around it: what is appended, what is read again, and what a disk can do to it."""

import asyncio
import os
from pathlib import Path

import pytest

from cdi_kernel.faults import Unavailable
from cdi_runtime.bus import Outgoing
from cdi_testing import eventually

from .spooling import MEGABYTE, aside, drained, files, message, opened


async def test_what_was_appended_comes_out_in_order_also_after_a_restart(tmp_path: Path) -> None:
    sent = [message(number, 700) for number in range(100)]
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(spool.append([one]) for one in sent[:50]))
        assert await spool.oldest() == await spool.oldest() == sent[:50], "flushed together, so they are in one file"
    async with opened(tmp_path) as spool:
        assert spool.events == 100
        for one in sent[50:]:
            await spool.append([one])
        assert len(files(tmp_path)) > 3
        assert await drained(spool) == sent
        assert (spool.events, spool.unread, files(tmp_path)) == (0, 0, [])
    async with opened(tmp_path) as spool:
        assert spool.empty


async def test_it_is_read_while_it_is_appended_to(tmp_path: Path) -> None:
    sent = [message(number, 700) for number in range(200)]
    found: list[Outgoing] = []
    async with opened(tmp_path) as spool:

        async def append() -> None:
            for one in sent:
                await spool.append([one])

        appending = asyncio.create_task(append())
        while not (appending.done() and spool.empty):
            await spool.filled()
            found += await spool.oldest()
            await spool.forget()
    assert found == sent


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool") as spool:
        await spool.append([message(1)])
        assert (tmp_path / "spool").stat().st_mode & 0o77 == 0
        assert {path.stat().st_mode & 0o77 for path in (tmp_path / "spool").iterdir()} == {0}


@pytest.mark.parametrize("cut", [1, 50, 130, 131, 400])
async def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    async with opened(tmp_path) as spool:
        for number in range(3):
            await spool.append([message(number)])
    (file,) = files(tmp_path)
    whole = file.stat().st_size
    os.truncate(file, whole - cut)
    left = (whole - cut) * 3 // whole
    for _ in range(2):  # the repaired file needs no other repair
        async with opened(tmp_path) as spool:
            assert spool.events == left * 2
            assert file.stat().st_size if left else not file.exists()
            assert not aside(tmp_path)
    async with opened(tmp_path) as spool:
        await spool.append([message(9)])
        assert await drained(spool) == [*map(message, range(left)), message(9)]


@pytest.mark.parametrize("while_open", [False, True])
async def test_damage_in_the_middle_costs_what_it_hit_and_leaves_the_file_aside(tmp_path: Path, while_open: bool) -> None:
    sent = [message(number, 1_000) for number in range(30)]

    def damage() -> None:
        with files(tmp_path)[1].open("r+b") as file:
            file.seek(3_500)
            file.write(b"?" * 20)

    async with opened(tmp_path) as spool:
        for one in sent:
            await spool.append([one])
        if while_open:
            damage()
            found = await drained(spool)
    if not while_open:
        damage()
        async with opened(tmp_path) as spool:
            assert spool.events == 2 * 29
            found = await drained(spool)
            assert spool.empty
    assert len(found) == 29
    assert [one for one in sent if one in found] == found
    assert len(aside(tmp_path)) == 1
    assert files(tmp_path) == []


async def test_a_file_without_a_good_record_does_not_stop_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number in range(30):
            await spool.append([message(number, 1_000)])
        files(tmp_path)[0].write_bytes(b"?" * files(tmp_path)[0].stat().st_size)
        found = await drained(spool)
        assert found == [message(number, 1_000) for number in range(30 - len(found), 30)]
        assert spool.empty
        await spool.append([message(99)])
        assert await drained(spool) == [message(99)]


async def test_all_lost_to_the_disk_does_not_stop_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([message(1)])
        files(tmp_path)[0].write_bytes(b"?" * files(tmp_path)[0].stat().st_size)
        assert await drained(spool) == []
        assert (spool.empty, spool.events) == (True, 0)


async def test_beyond_its_bound_it_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=MEGABYTE, segment_bytes=200_000) as spool:
        stored = [message(number, 100_000) for number in range(10)]
        for one in stored:
            await spool.append([one])
        with pytest.raises(Unavailable) as caught:
            await spool.append([message(10, 100_000)])
        assert caught.value.retry_after == 1.0
        assert spool.refusal() == "the spool is full"
        assert sum(file.stat().st_size for file in files(tmp_path)) <= MEGABYTE
        assert await spool.oldest() == stored[:2]
        await spool.forget()
        await eventually(lambda: spool.refusal() is None)
        await spool.append([message(99)])
        assert await drained(spool) == [*stored[2:], message(99)]


async def test_a_directory_belongs_to_one(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(Unavailable, match="another collector uses the spool"):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path):
        pass


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.spool").write_text("mine")
    async with opened(tmp_path) as spool:
        await spool.append([message(1)])
        assert await drained(spool) == [message(1)]
    assert (tmp_path / "notes.spool").read_text() == "mine"
