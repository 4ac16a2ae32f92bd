"""``google.protobuf.Timestamp`` to microseconds: serialized ones many at a time, and single ones."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp


def microseconds(times: Sequence[bytes]) -> list[int]:
    """Microseconds since 1970 of each; 0 for none. Events of one request share most of their times, so each is parsed once."""
    parse = Timestamp.FromString
    found = {time: (parsed := parse(time)).seconds * 1_000_000 + parsed.nanos // 1_000 for time in set(times)}
    return list(map(found.__getitem__, times))


def micros(time: Timestamp) -> int | None:
    """Microseconds since 1970; ``None`` for none."""
    return time.seconds * 1_000_000 + time.nanos // 1_000 or None
