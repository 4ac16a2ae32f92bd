"""A durable queue of messages: group commit to disk, first in first out, bounded.

What is appended while a flush is under way shares the next one, so the cost of flushing is paid per flush and never per event. All file
work happens in one thread; the loop only counts.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from cdi_collector.domain.spool_record import Record, encode, events_of
from cdi_collector.spool.segments import Segments
from cdi_kernel.faults import Unavailable
from cdi_runtime.bus import Outgoing
from cdi_runtime.telemetry import instruments, logger

RETRY_SECONDS: Final = 1.0
"""How long nothing is tried after the disk or the bound said no; what the client is told to wait."""

_REPORT_SECONDS: Final = 1.0
_log = logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Append:
    """Records that stand or fall together."""

    blocks: Sequence[bytes]
    size: int
    events: int
    receipt: asyncio.Future[None]


class Spool:
    """Messages that wait on disk. Made by ``spooled``.

    Attributes:
        events: events that wait or are being written.
    """

    def __init__(self, segments: Segments, max_bytes: int, executor: ThreadPoolExecutor) -> None:
        self.events = 0
        self._segments = segments
        self._max_bytes = max_bytes
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._records = 0
        self._since_us = 0
        self._taken: list[Record] = []
        self._filled = asyncio.Event()
        self._waiting: list[_Append] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._refusal: str | None = None
        self._refusing_until = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return self._records == 0

    @property
    def unread(self) -> int:
        """Bytes on disk that were not forgotten."""
        return self._segments.unread

    def refusal(self) -> str | None:
        """Why an append would be refused now, as far as is known; ``None`` if it is worth trying."""
        return self._refusal if self._loop.time() < self._refusing_until else None

    async def append(self, messages: Sequence[Outgoing]) -> None:
        """Returns when all messages are durable, behind all that were appended before.

        Raises:
            Unavailable: none of them is in the spool: it is full, or the disk does not take them.
        """
        now_us = time.time_ns() // 1_000
        records = [Record(message.subject, message.message_id, dict(message.headers), message.payload, now_us) for message in messages]
        blocks = [encode(record, self._segments.marker) for record in records]
        size = sum(map(len, blocks))
        if self._segments.size + self._waiting_bytes + size > self._max_bytes:
            raise self._refuse("the spool is full")
        append = _Append(blocks, size, sum(map(events_of, records)), self._loop.create_future())
        if self.empty:
            self._since_us = now_us
        self._count(len(blocks), append.events)
        self._waiting.append(append)
        self._waiting_bytes += size
        if self._writing is None:
            self._start()
        await append.receipt

    async def filled(self) -> None:
        """Returns when something waits."""
        await self._filled.wait()

    async def settled(self) -> None:
        """Returns when nothing is being written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def oldest(self) -> list[Outgoing]:
        """The oldest messages that are durable: a file's at most, and the same until they are forgotten. Raises ``Unavailable``."""
        if not self._taken:
            self._taken = await self._on_disk("read", self._segments.read)
        if not self._taken and self._writing is None and self._segments.unread == 0:
            # What was counted at the start became unreadable since.
            self._count(-self._records, -self.events)
        return [Outgoing(record.subject, record.payload, record.message_id, record.headers) for record in self._taken]

    async def forget(self) -> None:
        """Removes what ``oldest`` returned. Raises ``Unavailable``; then it has to be called again."""
        if not self._taken:
            return
        await self._on_disk("forget", self._segments.forget)
        taken, self._taken = self._taken, []
        self._since_us = taken[-1].spooled_us
        self._count(-len(taken), -sum(map(events_of, taken)))

    async def report(self) -> None:
        """Keeps the metrics current until cancelled."""
        while True:
            instruments.SPOOL_EVENTS.set(self.events)
            instruments.SPOOL_BYTES.set(self._segments.size)
            instruments.SPOOL_AGE.set(0.0 if self.empty else max(0.0, time.time() - self._since_us / 1e6))
            await asyncio.sleep(_REPORT_SECONDS)

    async def open(self) -> None:
        """Takes the directory and counts what an earlier run left. See ``Segments.open``."""
        recovered = await self._loop.run_in_executor(self._executor, self._segments.open)
        if not recovered:
            return
        self._count(sum(found.records for found in recovered), sum(found.events for found in recovered))
        self._since_us = recovered[0].since_us
        _log.info("spool.recovered", events=self.events, messages=self._records, bytes=self._segments.size)

    async def close(self) -> None:
        """Finishes what is being written and lets go of the directory."""
        await self.settled()
        await self._loop.run_in_executor(self._executor, self._segments.close)

    def _start(self) -> None:
        appends, self._waiting = self._waiting, []
        blocks = [block for append in appends for block in append.blocks]
        self._writing = self._loop.create_task(self._on_disk("append", lambda: self._segments.append(blocks)))
        self._writing.add_done_callback(lambda task: self._written(task, appends))

    def _written(self, task: asyncio.Task[None], appends: Sequence[_Append]) -> None:
        self._writing = None
        failure = Unavailable("spool", "the collector is stopping") if task.cancelled() else task.exception()
        for append in appends:
            self._waiting_bytes -= append.size
            self._settle(append, failure)
        if self._waiting:
            self._start()

    def _settle(self, append: _Append, failure: BaseException | None) -> None:
        if failure is not None:
            self._count(-len(append.blocks), -append.events)
        if append.receipt.done():
            return
        if failure is None:
            append.receipt.set_result(None)
        else:
            append.receipt.set_exception(failure)

    def _count(self, records: int, events: int) -> None:
        self._records += records
        self.events += events
        if self._records:
            self._filled.set()
        else:
            self._filled.clear()

    def _refuse(self, reason: str) -> Unavailable:
        self._refusal = reason
        self._refusing_until = self._loop.time() + RETRY_SECONDS
        return Unavailable("spool", reason, retry_after=RETRY_SECONDS)

    async def _on_disk(self, work: str, call: Callable[[], T]) -> T:
        """Runs a call in the spool's thread; an error of the disk becomes ``Unavailable``."""
        try:
            return await self._loop.run_in_executor(self._executor, call)
        except OSError as error:
            _log.error("spool.disk_error", work=work, error=errno.errorcode.get(error.errno or 0, "unknown"))
            raise self._refuse(f"the disk of the spool does not {work}") from error


@asynccontextmanager
async def spooled(directory: Path, max_bytes: int, segment_bytes: int) -> AsyncIterator[Spool]:
    """The spool in a directory, with what an earlier run left in it.

    Args:
        directory: of this collector alone.
        max_bytes: of its files together; beyond it appends are refused.
        segment_bytes: of one file, about.

    Raises:
        Unavailable: another collector has the directory.
        OSError: it cannot be used.
    """
    with ThreadPoolExecutor(1, "spool") as executor:
        spool = Spool(Segments(directory, segment_bytes), max_bytes, executor)
        await spool.open()
        try:
            yield spool
        finally:
            await spool.close()
