"""Where else than in the standard places a workspace's events carry identifiers: the identity rules' paths.

A path is ``traits.…``, ``properties.…`` or ``context.…`` with the names of members ("traits.phone", "context.device.id"). Of a document
only the members on a path are read, and only if their names occur in it at all. Deliberately absent: lists, wildcards, names with dots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cdi.event.v1 import event_pb2
from cdi.identity.v1 import rules_pb2

ROOTS: Final = ("traits", "properties", "context")

MAX_PATHS: Final = 100
"""Of one workspace; further ones are not looked at."""

GROUP_ID: Final = "group_id"
_EMAIL: Final = "email"


@dataclass(slots=True)
class _Members:
    """The members of one object that lie on paths.

    Attributes:
        found: per name, the types of identifiers that its value is.
        below: per name, the members of its value.
        decoder: reads exactly these members, as raw JSON, in the order of ``names``; made by ``ready``.
    """

    found: dict[str, list[str]] = field(default_factory=dict)
    below: dict[str, _Members] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    decoder: Any = None

    def ready(self) -> None:
        """Makes the decoder, here and below."""
        self.names = tuple(dict.fromkeys([*self.found, *self.below]))
        attributes = {f"m{place}": name for place, name in enumerate(self.names)}
        fields = [(attribute, msgspec.Raw, msgspec.Raw()) for attribute in attributes]
        self.decoder = msgspec.json.Decoder(msgspec.defstruct("Members", fields, rename=attributes, gc=False))
        for members in self.below.values():
            members.ready()

    def values(self, document: bytes) -> Iterator[tuple[str, str]]:
        """Type and value of the identifiers in a JSON document; none in what is no object."""
        try:
            read = self.decoder.decode(document)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return
        for name, raw in zip(self.names, map(bytes, msgspec.structs.astuple(read)), strict=True):
            if not raw:
                continue
            if name in self.found and (value := _text(raw)) is not None:
                for kind in self.found[name]:
                    yield kind, value.strip().lower() if kind == _EMAIL else value
            if name in self.below and raw.startswith(b"{"):
                yield from self.below[name].values(raw)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the events of one workspace carry identifiers beside the standard places.

    Attributes:
        roots: per root, what is looked for in it, and the first names of the paths as they stand in JSON.
        group: the group of an event is an identifier of the person.
    """

    roots: Mapping[str, tuple[_Members, tuple[bytes, ...]]]
    group: bool

    def __bool__(self) -> bool:
        return bool(self.roots) or self.group

    def identifiers(self, event: event_pb2.Event) -> Iterator[tuple[str, str]]:
        """Type and value of what an event carries there. The traits of a group event are the account's and are not looked at."""
        for root, (members, needed) in self.roots.items():
            document: bytes = getattr(event, root)
            if not document or (root == "traits" and event.type == event_pb2.EVENT_TYPE_GROUP):
                continue
            if any(document.find(name) >= 0 for name in needed):
                yield from members.values(document)
        if self.group and event.group_id:
            yield GROUP_ID, event.group_id


def places_of(rules: Iterable[rules_pb2.IdentifierRule]) -> Places:
    """What the rules of a workspace say. Types that never link, and paths that lead nowhere, are left out."""
    roots: dict[str, _Members] = {}
    count = 0
    group = False
    for rule in rules:
        if rule.disabled:
            continue
        group = group or rule.type == GROUP_ID
        for path in rule.paths:
            root, *names = path.split(".")
            if root not in ROOTS or not names or not all(names) or count == MAX_PATHS:
                continue
            count += 1
            members = roots.setdefault(root, _Members())
            for name in names[:-1]:
                members = members.below.setdefault(name, _Members())
            members.found.setdefault(names[-1], []).append(rule.type)
    for members in roots.values():
        members.ready()
    return Places({root: (members, tuple(map(_quoted, members.names))) for root, members in roots.items()}, group)


def _quoted(name: str) -> bytes:
    return msgspec.json.encode(name)


def _text(raw: bytes) -> str | None:
    """A text or a whole number as the value of an identifier; anything else is none."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return (str(value) or None) if type(value) in (str, int) else None
