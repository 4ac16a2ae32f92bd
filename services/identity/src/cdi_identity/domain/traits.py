"""Traits: the newest value of each, whatever the order of arrival, and where it came from.

Values stay the JSON bytes that the client sent: a NUL character or a number of 400 digits survives, and nothing is decoded twice.

A profile's document holds the traits that *its own* events brought; what merged profiles brought stays in theirs. The traits of a person
are the newest of all these documents (``combined``). So the origin profile of a trait is the row that it is in, a merge rewrites
nothing, and a merge that is undone gives every value back, also one that had lost.

The document is the JSON ``[[[event time in µs, message id, fingerprint], …], {trait: [source, value], …}]``: the traits of one event share
their source. Documents of an older form, ``{trait: [event time, value]}``, have neither message id nor fingerprint and are still read.

A document with ``COMPUTED`` in front is of that older form and holds the computed traits of the person, each with the time of its last
change. They stand before every trait that events brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec


class Source(NamedTuple):
    """What brought a trait.

    Attributes:
        time_us: when the event happened, microseconds since 1970.
        message_id: the event; empty if it is not known.
        fingerprint: of the strongest identifier that the event had (``identifiers.fingerprint``): whose trait it is after a split.
    """

    time_us: int
    message_id: str = ""
    fingerprint: int = 0


class Trait(NamedTuple):
    """One value and what brought it."""

    source: Source
    value: msgspec.Raw

    @property
    def time_us(self) -> int:
        """When the event happened, microseconds since 1970."""
        return self.source.time_us

    def stands_before(self, other: Trait) -> bool:
        """Whether this value stays when ``other`` comes: the newest wins, of equal times the greater message id, of one event the later."""
        mine, theirs = self.source, other.source
        if (mine.time_us, mine.message_id) != (theirs.time_us, theirs.message_id):
            return mine[:2] > theirs[:2]
        return bytes(self.value) == bytes(other.value)


Traits: TypeAlias = dict[str, Trait]
"""Traits by name."""

MAX_TRAITS: Final = 500
"""Traits of one profile, at most; further ones are not kept."""

MAX_KEY_LENGTH: Final = 200
"""Characters of a trait's name, at most; one with a longer name is not kept."""

MAX_VALUE_BYTES: Final = 8 * 1024
"""Bytes of a trait's JSON value, at most; a longer one is not kept."""

COMPUTED: Final = b"="
"""What a document of computed traits begins with."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FIRST_FORM: Final = msgspec.json.Decoder(dict[str, tuple[int, msgspec.Raw]])
_DOCUMENT: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(tuple[list[Source], dict[str, tuple[int, msgspec.Raw]]])
_VALUES: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(tuple[msgspec.Raw, dict[str, tuple[int, msgspec.Raw]]])
_ENCODER: Final = msgspec.json.Encoder()


def observed(payload: bytes, source: Source) -> Traits:
    """The traits that an event brings. What is no JSON object brings none: the event itself still counts.

    Args:
        payload: a JSON object.
        source: the event.
    """
    try:
        if not payload.isascii():
            payload.decode()
        values = _OBJECT.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if len(payload) <= MAX_KEY_LENGTH:
        return {key: Trait(source, value) for key, value in values.items()}
    return {
        key: Trait(source, value) for key, value in values.items() if len(key) <= MAX_KEY_LENGTH and len(bytes(value)) <= MAX_VALUE_BYTES
    }


def learn(known: Traits, news: Traits) -> list[str]:
    """Takes what is newer over into ``known``; returns the names of the traits that changed."""
    changed = []
    for key, trait in news.items():
        before = known.get(key)
        if before is None:
            if len(known) >= MAX_TRAITS:
                continue
        elif before.stands_before(trait):
            continue
        known[key] = trait
        changed.append(key)
    return changed


def combined(documents: Iterable[bytes]) -> Traits:
    """The traits of a person: the newest of the documents of all profiles that are part of it, the oldest profile's first.

    Computed ones take the place of others of their names.
    """
    result: Traits = {}
    computed: Traits = {}
    for document in documents:
        if document.startswith(COMPUTED):
            computed = from_document(document.removeprefix(COMPUTED))
        elif document:
            learn(result, from_document(document))
    result.update(computed)
    return result


def from_document(document: bytes) -> Traits:
    """The traits of a stored document; an empty one has none."""
    if not document:
        return {}
    if document[:1] == b"{":
        return {key: Trait(Source(time_us), value) for key, (time_us, value) in _FIRST_FORM.decode(document).items()}
    sources, values = _DOCUMENT.decode(document)
    return {key: Trait(sources[index], value) for key, (index, value) in values.items()}


def to_document(traits: Traits) -> bytes:
    """The document to store; empty without traits."""
    if not traits:
        return b""
    sources: dict[Source, int] = {}
    values = {key: (sources.setdefault(trait.source, len(sources)), trait.value) for key, trait in traits.items()}
    return _ENCODER.encode((list(sources), values))


def to_object(traits: Traits, names: Iterable[str] | None = None) -> bytes:
    """A JSON object of the values, by name; of some names only, if given. Empty (no object) if none of these is there."""
    if names is None:
        return _ENCODER.encode({key: traits[key].value for key in sorted(traits)})
    chosen = {key: traits[key].value for key in names if key in traits}
    return _ENCODER.encode(chosen) if chosen else b""


def shown(documents: Sequence[bytes]) -> bytes:
    """The traits of a person (``combined``) as a JSON object, by name."""
    if len(documents) == 1 and documents[0].startswith(b"["):
        # The usual person is one profile: nothing is compared, so nobody has to know what brought a value.
        _, values = _VALUES.decode(documents[0])
        return _ENCODER.encode({key: values[key][1] for key in sorted(values)})
    return to_object(combined(documents))


def taken(traits: Traits, fingerprints: frozenset[int]) -> tuple[Traits, Traits]:
    """Parts traits by who brought them: those that stay, and those of the identifiers with these fingerprints."""
    stay: Traits = {}
    leave: Traits = {}
    for key, trait in traits.items():
        (leave if trait.source.fingerprint in fingerprints else stay)[key] = trait
    return stay, leave
