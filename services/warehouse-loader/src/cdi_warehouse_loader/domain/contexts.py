"""Contexts to columns, member by member.

The members of a context repeat at different rates: one library, a dozen user agents, an address per person, a page per event. So each
context, and each member, is read once per distinct value in the batch, and columns of few values reach the warehouse as Arrow dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cdi_warehouse_loader.domain.batch_columns import distinct
from cdi_warehouse_loader.domain.flatten import Flat, by_shape, flatten
from cdi_warehouse_loader.domain.layout import CONTEXT_NAMES

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_value = msgspec.json.Decoder().decode

_PROFILE: Final = "profile\0"
"""The member that holds the profile: gives the columns of a member ``profile`` and is the name of none that a client sends in earnest."""

_ABSENT: Final = 0
"""Place of the value that stands for none."""


@dataclass(frozen=True, slots=True)
class ContextPart:
    """Distinct values of a part of the context.

    Attributes:
        flat: the values, flattened.
        row_of: per event, its row in ``flat``.
    """

    flat: Flat
    row_of: list[int]


def read_contexts(contexts: Sequence[bytes], profiles: Sequence[bytes] = ()) -> Sequence[ContextPart]:
    """Reads the contexts of a batch; no column is in two parts.

    Args:
        contexts: per event, a JSON object as the client sent it; no bytes are no members.
        profiles: per event, a JSON object of the traits that identity chose, for the columns ``context_profile_…``; none at all: nowhere.

    Raises:
        msgspec.DecodeError: one is not a JSON object.
    """
    parts = _by_member(contexts)
    if profiles:
        parts.append(_whole([(profile, b"") for profile in profiles]))
    names = [name for part in parts for name in part.flat.columns]
    if len(set(names)) == len(names):
        return parts
    # Two members of one column: which of them stays is a matter of the whole context.
    return [_whole(list(zip(profiles or [b""] * len(contexts), contexts, strict=True)))]


def _by_member(contexts: Sequence[bytes]) -> list[ContextPart]:
    wholes, place_of = distinct(contexts)
    parts = _members_apart(list(wholes))
    if len(wholes) == len(contexts):
        return parts
    return [ContextPart(part.flat, list(map(part.row_of.__getitem__, place_of))) for part in parts]


def _members_apart(contexts: Sequence[bytes]) -> list[ContextPart]:
    objects = [_members(context) if context else {} for context in contexts]
    places: dict[str, dict[bytes, int]] = {}
    place_of: dict[str, list[int]] = {}
    for shape, events in by_shape(objects).items():
        for key, column in zip(shape, zip(*[objects[event].values() for event in events], strict=True), strict=True):
            values = list(map(bytes, column))
            known = places.setdefault(key, {b"": _ABSENT})
            for value in dict.fromkeys(values):
                known.setdefault(value, len(known))
            found = list(map(known.__getitem__, values))
            if len(events) == len(contexts):
                place_of[key] = found
                continue
            member = place_of.setdefault(key, [_ABSENT] * len(contexts))
            for event, place in zip(events, found, strict=True):
                member[event] = place
    return [_part([{}, *({key: _value(value)} for value in list(known)[1:])], place_of[key]) for key, known in places.items()]


def _whole(events: Sequence[tuple[bytes, bytes]]) -> ContextPart:
    """Profile and context of each event together; of a column that both have, the profile's value stays."""
    places, place_of = distinct(events)
    objects: list[dict[str, Any]] = []
    for profile, context in places:
        members = {_PROFILE: _object(profile)} if profile else {}
        objects.append(members | _object(context) if context else members)
    return _part(objects, place_of)


def _part(objects: Sequence[dict[str, Any]], place_of: list[int]) -> ContextPart:
    flat = flatten(objects, CONTEXT_NAMES)
    if flat.order == list(range(len(objects))):
        return ContextPart(flat, place_of)
    row_at = [0] * len(objects)
    for row, place in enumerate(flat.order):
        row_at[place] = row
    return ContextPart(flat, list(map(row_at.__getitem__, place_of)))
