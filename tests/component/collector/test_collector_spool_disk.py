"""A disk that refuses at any step, and a power cut at any byte: what was answered is kept, what was not is refused and leaves no trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdi_collector.domain.spool_record import Record, encode
from cdi_collector.spool.log import Spool
from cdi_collector.spool.segments import Segments
from cdi_kernel.envelope import EVENTS
from cdi_kernel.faults import Unavailable
from cdi_runtime.bus import Outgoing

from .spooling import MEGABYTE, aside, disk_of, drained, files, files_at_most, message, no_more_files, now_writes_to, opened

REFUSED = "the disk of the spool does not append"


async def test_what_the_disk_takes_in_part_is_taken_back(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=200_000) as spool:
        await spool.append([message(1)])
        with files_at_most(50_000):
            with pytest.raises(Unavailable, match=REFUSED):
                await spool.append([message(2, 100_000), message(3)])
            assert spool.refusal() is not None
            await spool.append([message(4)])
            with pytest.raises(Unavailable):
                await spool.append([message(5, 100_000)])
        await spool.append([message(6, 100_000)])
        assert spool.events == 6
    async with opened(tmp_path) as spool:
        assert await drained(spool) == [message(1), message(4), message(6, 100_000)]
    assert not aside(tmp_path)


async def test_a_directory_that_went_away(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    async with opened(directory) as spool:
        (directory / "lock").unlink()
        directory.rmdir()
        with pytest.raises(Unavailable):
            await spool.append([message(1)])
        assert spool.empty
        directory.mkdir()
        await spool.append([message(2)])
        assert await drained(spool) == [message(2)]


async def test_a_full_file_system_keeps_what_it_has_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with disk_of(MEGABYTE // 2, tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(MEGABYTE // 4))
        async with opened(disk / "spool", segment_bytes=50_000) as spool:
            answered = await filled(spool)
            assert len(answered) > 20
            for _ in range(3):
                with pytest.raises(Unavailable, match=REFUSED):
                    await spool.append([message(200, 50_000), message(201)])
            assert spool.events == 2 * len(answered)
            ballast.unlink()
            for number in (301, 302):
                await spool.append([message(number, 50_000)])
                answered.append(message(number, 50_000))
        async with opened(disk / "spool") as spool:
            with pytest.raises(Unavailable, match=REFUSED):
                await spool.append([message(400, MEGABYTE)])
            assert await drained(spool) == answered, "draining needs no room"
            assert not files(disk / "spool")
        assert not aside(disk / "spool")


async def filled(spool: Spool) -> list[Outgoing]:
    """Appends until it is refused; what was taken."""
    answered: list[Outgoing] = []
    while True:
        one = message(len(answered), 7_001)
        try:
            await spool.append([one])
        except Unavailable:
            return answered
        answered.append(one)


async def test_no_file_can_be_made(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=1_000) as spool:
        await spool.append([message(1)])
        await spool.append([message(2, 1_000)])
        with no_more_files(), pytest.raises(Unavailable, match=REFUSED):
            await spool.append([message(3)])
        await spool.append([message(4)])
        assert len(files(tmp_path)) == 2
        assert await drained(spool) == [message(1), message(2, 1_000), message(4)]


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])  # no room to write; written, but the flush fails
async def test_what_a_failed_flush_may_have_written_is_not_believed(tmp_path: Path, device: str) -> None:
    async with opened(tmp_path, segment_bytes=100_000) as spool:
        await spool.append([message(1)])
        (file,) = files(tmp_path)
        before = file.read_bytes()
        now_writes_to(device, file)
        with pytest.raises(Unavailable, match=REFUSED):
            await spool.append([message(2)])
        assert spool.events == 2
        file.write_bytes(before * 2)  # as if the disk had taken it after all, and could not give it back
        await spool.append([message(3)])
        assert len(files(tmp_path)) == 2, "nothing is appended to a file whose flush has failed"
        assert await drained(spool) == [message(1), message(3)]


async def test_a_write_that_fails_in_a_new_file_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        with files_at_most(MEGABYTE), pytest.raises(Unavailable, match=REFUSED):
            await spool.append([message(1), message(1, 2 * MEGABYTE)])
        assert not files(tmp_path)
        await spool.append([message(2)])
        assert await drained(spool) == [message(2)]


def record(number: int) -> Record:
    return Record(f"cdi.collected.{number}", f"id-{number}", {EVENTS: "2"}, b"x" * 20, 1_700_000_000_000_000)


def cut(content: bytes, _: int, at: int) -> bytes:
    return content[:at]


def zeroed_from(content: bytes, _: int, at: int) -> bytes:
    return content[:at] + bytes(len(content) - at)


def zeroed_until(content: bytes, durable: int, at: int) -> bytes:
    return content[:durable] + bytes(at - durable) + content[at:]


def longer_than_written(content: bytes, _: int, at: int) -> bytes:
    return content[:at] + bytes(5_000)


@pytest.mark.parametrize("left_by", [cut, zeroed_from, zeroed_until, longer_than_written])
@pytest.mark.parametrize("segment_bytes", [100_000, 1])  # the last append is in the file of the others; in one of its own
def test_a_power_cut_at_any_byte_of_the_last_append(
    tmp_path: Path, segment_bytes: int, left_by: Callable[[bytes, int, int], bytes]
) -> None:
    """After the last flush a disk may have any part of what was written since, in any order. None of that was answered."""
    flushed, last = [record(number) for number in range(3)], [record(3), record(4)]
    contents, durable = written(tmp_path / "before", segment_bytes, flushed, last)
    *others, newest = contents
    for at in range(durable, len(contents[newest]) + 1):
        directory = tmp_path / str(at)
        directory.mkdir()
        for name in others:
            (directory / name).write_bytes(contents[name])
        (directory / newest).write_bytes(left_by(contents[newest], durable, at))
        for appended in (record(8), record(9)):
            with running(directory, segment_bytes) as segments:
                segments.append([encode(appended, segments.marker)])
        with running(directory, segment_bytes) as segments:
            found = list(all_of(segments))
        assert found[:3] == flushed
        rest = found[3:-2]
        assert rest == [one for one in last if one in rest], "whole and in order, whatever of it is there"
        assert found[-2:] == [record(8), record(9)]
        assert left_by is zeroed_until or not aside(directory), "a torn tail is cut off for good, and is no damage"


def written(directory: Path, segment_bytes: int, flushed: list[Record], last: list[Record]) -> tuple[dict[str, bytes], int]:
    """The files, and how long the newest one was before the last append."""
    with running(directory, segment_bytes) as segments:
        for one in flushed:
            segments.append([encode(one, segments.marker)])
        before = {path.name: path.stat().st_size for path in files(directory)}
        segments.append([encode(one, segments.marker) for one in last])
    contents = {path.name: path.read_bytes() for path in files(directory)}
    return contents, before.get(list(contents)[-1], 0)


@contextmanager
def running(directory: Path, segment_bytes: int) -> Iterator[Segments]:
    segments = Segments(directory, segment_bytes)
    segments.open()
    try:
        yield segments
    finally:
        segments.close()


def all_of(segments: Segments) -> Iterator[Record]:
    while found := segments.read():
        yield from found
        segments.forget()
