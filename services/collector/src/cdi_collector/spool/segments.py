"""The files of the spool. Blocking: one thread calls everything here.

A directory holds ``lock`` and ``<number>-<marker>.spool`` files, each with records (``domain/spool_record.py``) up to about a given size.
Records are appended to the newest file of this run and read from the oldest; a file goes when all of it was read. Files of an earlier
run are never appended to.

After a crash only the newest file can end within a record, and nobody was told that this one is stored: it is cut off. Anything else that
cannot be read is damage by the disk. Then every good record before and behind it is used, since giving up on them would lose accepted
events, and when they are read, the whole file stays aside as ``<name>.damaged`` for people to look at.

A disk may refuse at any step: no room, no file, a flush that fails. What was to be written then is in the spool in no part, and its file is
never appended to again: a flush that is tried again after a failed one reports success for pages that the kernel has given up on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cdi_collector.domain.spool_record import MARKER_BYTES, Record, Scan, events_of, scan
from cdi_kernel.faults import Unavailable
from cdi_runtime.telemetry import logger

_NAME: Final = re.compile(r"[0-9]{12}-[0-9a-f]{16}\.spool")
_SUFFIX: Final = ".spool"
_ASIDE: Final = ".damaged"
_log = logger(__name__)


@dataclass(slots=True)
class Segment:
    """One file.

    Attributes:
        path: the file.
        marker: of its records.
        end: bytes that are durable and belong to the spool.
        read: bytes of these that were read and forgotten.
        aside: whether it is damaged, so that it is kept when all of it was read.
        descriptor: of a file that is appended to.
    """

    path: Path
    marker: bytes
    end: int = 0
    read: int = 0
    aside: bool = False
    descriptor: int | None = None

    def release(self) -> None:
        """Appends no more."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a file of an earlier run holds.

    Attributes:
        records: how many.
        events: in these.
        since_us: when the first was written, in microseconds since 1970.
    """

    records: int
    events: int
    since_us: int


class Segments:
    """The records on disk, first in first out.

    Args:
        directory: of one running collector alone; made if missing, readable by its owner only, since events are personal.
        segment_bytes: size at which a new file is begun.

    Attributes:
        marker: of the records that this run appends.
        size: bytes in all files.
        unread: bytes that were appended and not forgotten.
    """

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        self.marker = os.urandom(MARKER_BYTES)
        self.size = 0
        self.unread = 0
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._next_number = 1
        self._reading: int | None = None
        self._lock: int | None = None

    def open(self) -> Sequence[Recovered]:
        """Takes the directory, repairs what a crash left, and says what waits, oldest first. One file at a time is in memory.

        Raises:
            Unavailable: another collector has the directory.
            OSError: it cannot be used.
        """
        self._make_directory()
        self._lock = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Unavailable(
                "spool", f"another collector uses the spool in {self._directory}: each needs a directory of its own"
            ) from None
        paths = sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        recovered = [self._recover(path, newest=path is paths[-1]) for path in paths]
        _sync_directory(self._directory)
        return [found for found in recovered if found is not None]

    def append(self, records: Sequence[bytes]) -> None:
        """Writes encoded records; when it returns, they are durable.

        Raises:
            OSError: none of them is in the spool.
        """
        block = memoryview(b"".join(records))
        segment = self._newest()
        assert segment.descriptor is not None
        try:
            written = 0
            while written < len(block):
                written += os.write(segment.descriptor, block[written:])
            os.fdatasync(segment.descriptor)
        except OSError:
            self._retract(segment)
            raise
        segment.end += len(block)
        self.size += len(block)
        self.unread += len(block)

    def read(self) -> list[Record]:
        """The records of the oldest file that were not forgotten; empty when no good one is left. Raises ``OSError``."""
        while self._segments:
            oldest = self._segments[0]
            self._reading = oldest.end
            found = _scan_file(oldest, oldest.read, oldest.end)
            if (found.unreadable or found.end < oldest.end - oldest.read) and not oldest.aside:
                _mark_damaged(oldest, found, oldest.end - oldest.read - found.end)
            if found.records:
                return found.records
            self.forget()
        return []

    def forget(self) -> None:
        """Removes for good what the last ``read`` returned. Raises ``OSError``; then it has to be called again."""
        if self._reading is None:
            return
        oldest = self._segments[0]
        if self._reading < oldest.end:
            self.unread -= self._reading - oldest.read
            oldest.read = self._reading
        else:
            _remove(oldest)
            _sync_directory(self._directory)
            oldest.release()
            self._segments.remove(oldest)
            self.size -= oldest.end
            self.unread -= oldest.end - oldest.read
        self._reading = None

    def close(self) -> None:
        """Lets go of the files and of the directory."""
        for segment in self._segments:
            segment.release()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _newest(self) -> Segment:
        newest = self._segments[-1] if self._segments else None
        if newest is not None and newest.descriptor is not None and newest.end < self._segment_bytes:
            return newest
        path = self._directory / f"{self._next_number:012d}-{self.marker.hex()}{_SUFFIX}"
        made = Segment(path, self.marker)
        made.descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        self._next_number += 1
        self._segments.append(made)
        try:
            _sync_directory(self._directory)
        except OSError:
            self._retract(made)
            raise
        if newest is not None:
            newest.release()
        return made

    def _retract(self, segment: Segment) -> None:
        """Takes back what was half written, and appends elsewhere from now on: after a failed flush nobody knows what the disk has."""
        with contextlib.suppress(OSError):
            if segment.end == 0:
                segment.path.unlink()
                self._segments.remove(segment)
            elif segment.descriptor is not None:
                os.ftruncate(segment.descriptor, segment.end)
                os.fsync(segment.descriptor)
        with contextlib.suppress(OSError):
            segment.release()

    def _recover(self, path: Path, *, newest: bool) -> Recovered | None:
        number, _, marker = path.stem.partition("-")
        segment = Segment(path, bytes.fromhex(marker), path.stat().st_size)
        self._next_number = int(number) + 1
        found = _scan_file(segment, 0, segment.end)
        torn = segment.end - found.end
        if found.unreadable or (torn and not newest):
            _mark_damaged(segment, found, torn)
        elif torn:
            _log.warning("spool.torn_tail_cut", file=path.name, records=len(found.records), cut_bytes=torn)
        if not found.records:
            _remove(segment)
            return None
        segment.end = found.end
        if torn and not segment.aside:
            _cut(path, found.end)
        self._segments.append(segment)
        self.size += segment.end
        self.unread += segment.end
        return Recovered(len(found.records), sum(map(events_of, found.records)), found.records[0].spooled_us)

    def _make_directory(self) -> None:
        """Makes what is missing of the path. Each part has to be durable in the one above, or a power cut takes the spool with it."""
        missing = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            _sync_directory(path.parent)


def _scan_file(segment: Segment, start: int, end: int) -> Scan:
    with segment.path.open("rb") as file:
        file.seek(start)
        return scan(file.read(end - start), segment.marker)


def _cut(path: Path, end: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mark_damaged(segment: Segment, found: Scan, behind: int) -> None:
    segment.aside = True
    _log.error("spool.damaged", file=segment.path.name, records=len(found.records), unreadable_bytes=found.unreadable + behind)


def _remove(segment: Segment) -> None:
    """Takes a file out of the spool. Of a damaged one people may save more than a scan does."""
    with contextlib.suppress(FileNotFoundError):
        if segment.aside:
            segment.path.rename(segment.path.with_name(segment.path.name + _ASIDE))
        else:
            segment.path.unlink()


def _sync_directory(path: Path) -> None:
    """Makes the making and removing of what is in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
