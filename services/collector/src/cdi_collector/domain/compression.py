"""gzip, found by its magic bytes: SDKs send it with and without a Content-Encoding."""

from __future__ import annotations

import zlib
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import InvalidArgument, TooLarge

_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 31
_MAX_MEMBERS: Final = 64


def decompressed(body: bytes, limit: int) -> bytes:
    """The body, unzipped if it is gzip. Never makes more than ``limit`` + 1 bytes of output, whatever the input claims.

    Raises:
        TooLarge: there is more than ``limit``.
        InvalidArgument: the gzip stream is damaged or cut.
    """
    if body[:2] != _MAGIC:
        if len(body) > limit:
            raise too_large(limit)
        return body
    parts: list[bytes] = []
    room = limit + 1
    rest = body
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(_GZIP)
        try:
            part = stream.decompress(rest, room)
        except zlib.error as error:
            raise _damaged() from error
        parts.append(part)
        room -= len(part)
        if room <= 0:
            raise too_large(limit)
        if not stream.eof:
            raise _damaged()
        rest = stream.unused_data
        if rest[:2] != _MAGIC:
            return b"".join(parts)
    raise _damaged()


def too_large(limit: int) -> TooLarge:
    """The fault of a body over ``limit`` bytes."""
    return TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, f"the body is over {limit} bytes", metadata={"limit": str(limit)})


def _damaged() -> InvalidArgument:
    return InvalidArgument("the body is not the gzip that it starts as", reason=error_pb2.ERROR_REASON_INVALID_COMPRESSION)
