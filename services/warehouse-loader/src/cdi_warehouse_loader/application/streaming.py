"""Answers on their way out: a thread runs the query, the event loop sends, and neither runs ahead of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Any, Final

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.ports import Question

PART_BYTES: Final = 1024 * 1024
"""The largest part that is sent; gRPC's messages have a limit."""

_AHEAD: Final = 2
"""Parts that may wait to be sent. Then the query waits."""

SEND_SECONDS: Final = 60.0
"""How long a part may wait for a slow client, until when other queries wait too."""


class Stream:
    """One query whose answer is sent as an Arrow IPC stream.

    Args:
        access: to the warehouse.
        question: what is asked.
    """

    def __init__(self, access: Access, question: Question) -> None:
        self._access = access
        self._question = question
        self._ready: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)
        self._loop = asyncio.get_running_loop()
        self._gone = False

    async def parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Parts of the stream, and with each whether rows were left out, known with the last, which is empty."""
        running = asyncio.ensure_future(self._access.read(lambda warehouse: self._run(warehouse.stream)))
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be there any more to ask for it
        try:
            while True:
                getting = asyncio.ensure_future(self._ready.get())
                await asyncio.wait((running, getting), return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result(), False
                    continue
                getting.cancel()
                truncated = await running
                while not self._ready.empty():
                    yield self._ready.get_nowait(), False
                yield b"", truncated
                return
        finally:
            self._gone = True
            while not self._ready.empty():  # the thread that waits to put something goes on, and sees that nobody is there
                self._ready.get_nowait()

    def _run(self, stream: Any) -> bool:
        """In the thread of queries."""
        sink = _Sink()
        writer: Any = None

        def take(batch: Any) -> None:
            nonlocal writer
            if writer is None:
                writer = pa.ipc.new_stream(sink, batch.schema)
            writer.write_batch(batch)
            self._send(sink.taken())

        truncated = bool(stream(self._question, take))
        writer.close()
        self._send(sink.taken())
        return truncated

    def _send(self, data: bytes) -> None:
        for start in range(0, len(data), PART_BYTES):
            if self._gone:
                raise CancelledError
            put = asyncio.run_coroutine_threadsafe(self._ready.put(data[start : start + PART_BYTES]), self._loop)
            try:
                put.result(SEND_SECONDS)
            except TimeoutError as error:
                put.cancel()
                raise TooLarge(
                    error_pb2.ERROR_REASON_QUERY_REFUSED,
                    f"the answer was not taken within {SEND_SECONDS:g} s",
                    metadata={"limit": "seconds"},
                ) from error


class _Sink:
    """A file that Arrow writes to and whose bytes are taken out now and then."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        return None

    def close(self) -> None:
        return None

    def taken(self) -> bytes:
        taken = b"".join(self._written)
        self._written.clear()
        return taken
