"""Serialized ``google.protobuf.Timestamp`` to microseconds, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp


def microseconds(times: Sequence[bytes]) -> list[int]:
    """Microseconds since 1970 of each; 0 for none. Events of one request share most of their times, so each is parsed once."""
    parse = Timestamp.FromString
    found = {time: (parsed := parse(time)).seconds * 1_000_000 + parsed.nanos // 1_000 for time in set(times)}
    return list(map(found.__getitem__, times))
