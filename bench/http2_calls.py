"""Unary gRPC calls in their bytes, over one connection: a client that costs a fraction of grpc.aio's.

Where a service has one core and its client shares the other with a database, a client that is busy measures itself: answers lie in the
socket until it comes to them. So requests are prepared, header block included, and of the answers nothing is read but which call they
belong to and the message (RFC 9113 and gRPC's ``PROTOCOL-HTTP2``). Header blocks are not decoded: a call that ends without a message was
refused.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast

Take = Callable[[bytes | None], None]
"""Gets the message of an answer, or ``None``: the call was refused."""

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE: Final = 0x4
_WIDEST: Final = (1 << 31) - 1
_DEFAULT_WINDOW: Final = (1 << 16) - 1
_FRAME_HEADER: Final = 9
_MESSAGE_HEADER: Final = 5


class Http2Calls(asyncio.Protocol):
    """The connection; see ``connected``.

    Args:
        path: of the method, ``/package.Service/Method``.
        authority: ``host:port``.
    """

    def __init__(self, path: str, authority: str) -> None:
        self._headers = _header_block(path, authority)
        self._under_way: dict[int, Take] = {}
        self._messages: dict[int, bytes] = {}
        self._stream = -1
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio``. No answer ever waits for room: a run is shorter than the widest window."""
        self._transport = cast(asyncio.WriteTransport, transport)
        wide = _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WIDEST))
        self._transport.write(_PREFACE + wide + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDEST - _DEFAULT_WINDOW)))

    def call(self, request: bytes, take: Take) -> None:
        """Sends a request, at most 16 KiB less the header of a message."""
        self._stream += 2
        self._under_way[self._stream] = take
        message = struct.pack(">BI", 0, len(request)) + request
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._headers) + _frame(_DATA, _END_STREAM, self._stream, message)
        )

    def data_received(self, data: bytes) -> None:
        """See ``asyncio``."""
        data = self._rest + data
        at = 0
        while len(data) - at >= _FRAME_HEADER:
            ends = at + _FRAME_HEADER + int.from_bytes(data[at : at + 3], "big")
            if ends > len(data):
                break
            stream = int.from_bytes(data[at + 5 : at + _FRAME_HEADER], "big")
            self._frame_received(data[at + 3], data[at + 4], stream, data[at + _FRAME_HEADER : ends])
            at = ends
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio``."""
        for stream in list(self._under_way):
            self._ended(stream)

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _frame_received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._messages[stream] = self._messages.get(stream, b"") + payload
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        if kind == _RST_STREAM or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self._ended(stream)

    def _ended(self, stream: int) -> None:
        message = self._messages.pop(stream, None)
        take = self._under_way.pop(stream, None)
        if take is not None:  # an answer may be followed by a reset of what is left of its request
            take(None if message is None else message[_MESSAGE_HEADER:])


async def connected(path: str, address: str) -> Http2Calls:
    """A connection for calls of one method.

    Args:
        path: of the method, ``/package.Service/Method``.
        address: ``host:port``.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    _, made = await asyncio.get_running_loop().create_connection(lambda: Http2Calls(path, address), host, int(port))
    return made


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header_block(path: str, authority: str) -> bytes:
    """Indexed where the static table has them (``:method POST``, ``:scheme http``), the others as literals that nobody remembers."""
    fixed = b"\x83\x86"
    by_index = b"\x04" + _text(path) + b"\x01" + _text(authority)
    named = b"".join(b"\x00" + _text(name) + _text(value) for name, value in (("content-type", "application/grpc"), ("te", "trailers")))
    return fixed + by_index + named


def _text(value: str) -> bytes:
    """A string of HPACK without Huffman coding, of less than 127 bytes."""
    return bytes([len(value)]) + value.encode()
