"""Time: instants as microseconds since 1970 UTC, reading them from JSON text, and correcting a client's clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, Protocol

MAX_INSTANT_US: Final = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last instant of ``google.protobuf.Timestamp``."""

MIN_INSTANT_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the first one."""

MILLISECONDS_FROM: Final = 100_000_000_000
"""A JSON number from here on is taken as milliseconds (1973 on), below as seconds."""

_SECOND: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_SECOND_LENGTH: Final = len("2026-11-21T12:00:00")
_UTC_FRACTIONS: Final = {"Z": 0, "+00:00": 0} | {
    f".{millis:03d}{zone}": millis * 1_000 for millis in range(1_000) for zone in ("Z", "+00:00")
}
_CACHED_SECONDS: Final = 10_000
_seconds: dict[str, int] = {}
"""Microseconds since 1970 of whole seconds in UTC as written: the events of one time share them."""


class Clock(Protocol):
    """What domain code is given instead of the system clock."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC. Does not promise to rise."""
        ...


def parse_instant(value: object) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text, or of a number of seconds or milliseconds; ``None`` if it is no instant.

    A text without an offset is taken as UTC. An instant before the year 1 or after 9999, which an offset can make, is none.
    """
    if isinstance(value, str):
        # What SDKs send: a second that others share, a fraction in milliseconds, UTC.
        fraction = _UTC_FRACTIONS.get(value[_SECOND_LENGTH:])
        if fraction is not None and (second := _seconds.get(value[:_SECOND_LENGTH])) is not None:
            return second + fraction
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        micros = instant_of(moment)
        if fraction is not None and _SECOND.fullmatch(value, 0, _SECOND_LENGTH):
            if len(_seconds) >= _CACHED_SECONDS:
                _seconds.clear()
            _seconds[value[:_SECOND_LENGTH]] = micros - fraction
        return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            micros = int(value * 1_000) if abs(value) >= MILLISECONDS_FROM else int(value * 1_000_000)
        except (OverflowError, ValueError):
            return None
        return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None
    return None


def instant_of(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def correct_skew(received_us: int, original_us: int | None, sent_us: int | None) -> int:
    """When it happened by the collector's clock: ``received − (sent − original)`` (reference: Segment's clock correction).

    Without a sent time the original time stands; without an original time it happened when it was received. A result outside the
    range of a timestamp, as from a clock off by millennia, is the receive time.
    """
    if original_us is None:
        return received_us
    corrected = original_us if sent_us is None else received_us - (sent_us - original_us)
    return corrected if MIN_INSTANT_US <= corrected <= MAX_INSTANT_US else received_us


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
