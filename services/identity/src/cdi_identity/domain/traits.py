"""Traits: the newest value of each, whatever the order of arrival.

Values stay the JSON bytes that the client sent: a NUL character or a number of 400 digits survives, and nothing is decoded twice.
The document of a profile is a JSON object of ``[event time in microseconds, value]`` by trait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

Traits: TypeAlias = dict[str, tuple[int, msgspec.Raw]]
"""Event time in microseconds and JSON value by trait."""


class Provenance(NamedTuple):
    """Where a trait comes from.

    Attributes:
        name: of the trait.
        value: its JSON.
        event_us: when the event happened that brought it, microseconds since 1970.
        message_id: that event; empty where it was not kept.
    """

    name: str
    value: bytes
    event_us: int
    message_id: str


MAX_TRAITS: Final = 500
"""Traits of one profile, at most; further ones are not kept."""

MAX_KEY_LENGTH: Final = 200
"""Characters of a trait's name, at most; one with a longer name is not kept."""

MAX_VALUE_BYTES: Final = 8 * 1024
"""Bytes of a trait's JSON value, at most; a longer one is not kept."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DOCUMENT: Final = msgspec.json.Decoder(Traits)
_ENCODER: Final = msgspec.json.Encoder()


def observed(payload: bytes, time_us: int) -> Traits:
    """The traits that an event brings. What is no JSON object brings none: the event itself still counts.

    Args:
        payload: a JSON object.
        time_us: when the event happened.
    """
    try:
        payload.decode()
        values = _OBJECT.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {key: (time_us, value) for key, value in values.items() if len(key) <= MAX_KEY_LENGTH and len(bytes(value)) <= MAX_VALUE_BYTES}


def learn(known: Traits, news: Traits) -> bool:
    """Adds what is newer to ``known``; of two equally old values the one that came later stands. Returns whether anything changed."""
    changed = False
    for key, (time_us, value) in news.items():
        before = known.get(key)
        if before is None:
            if len(known) >= MAX_TRAITS:
                continue
        elif time_us < before[0] or (time_us == before[0] and bytes(value) == bytes(before[1])):
            continue
        known[key] = (time_us, value)
        changed = True
    return changed


def from_document(document: bytes) -> Traits:
    """The traits of a stored document; an empty one has none."""
    return _DOCUMENT.decode(document) if document else {}


def to_document(traits: Traits) -> bytes:
    """The document to store; empty without traits."""
    return _ENCODER.encode(traits) if traits else b""


def to_object(traits: Traits) -> bytes:
    """A JSON object of the values, by name."""
    return _ENCODER.encode({key: traits[key][1] for key in sorted(traits)})


def provenance_of(document: bytes) -> Sequence[Provenance]:
    """Where the traits of a stored document come from, by name."""
    return [Provenance(name, bytes(value), time_us, "") for name, (time_us, value) in sorted(from_document(document).items())]
