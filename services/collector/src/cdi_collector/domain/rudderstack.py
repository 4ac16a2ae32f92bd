"""What RudderStack's clients say in words of their own, beside Segment's language.

The anonymous id may stand in a header of the request. ``merge`` connects further identifiers with a person: it becomes an identify that
has them as ``context.externalIds``, which is where the identity graph finds identifiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Identifier, Item, nesting_fault
from cdi_collector.domain.event_fields import invalid
from cdi_kernel.faults import Fault, Rejected

MAX_MERGED: Final = 50
"""Identifiers that one merge connects, at most; the identity graph takes no more from one event."""

_EMPTY: Final = (b"", b"null", b"{}")
# How the identity graph calls what RudderStack calls otherwise.
_KINDS: Final = {"userid": "user_id", "anonymousid": "anonymous_id"}


class _Property(msgspec.Struct):
    type: str
    value: Identifier


class _Merge(msgspec.Struct, rename="camel"):
    merge_properties: list[_Property] | None = None


class _ExternalId(msgspec.Struct):
    id: str
    type: str
    collection: str = "users"
    encoding: str = "none"


_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_merge: Final = msgspec.json.Decoder(_Merge).decode


def name_strangers(items: Iterable[Item], anonymous_id: str) -> None:
    """Gives the anonymous id of the whole request to the events that name nobody."""
    for item in items:
        if isinstance(item, ClientEvent) and item.user_id in (None, "") and item.anonymous_id in (None, ""):
            item.anonymous_id = anonymous_id


def with_merges(items: Sequence[Item], texts: Sequence[bytes]) -> list[Item]:
    """The items of a batch with its merges as identifies, or as the faults that they are.

    Args:
        items: as read.
        texts: the JSON of each.
    """
    return [_read(item, text) for item, text in zip(items, texts, strict=True)]


def merge_to_identify(event: ClientEvent, text: bytes) -> None:
    """Changes an event that is a merge.

    Args:
        event: as read.
        text: its JSON, of which the event keeps only what all types have.

    Raises:
        Rejected: it has nothing to connect.
        InvalidArgument: that is no list of types and values, or the context is no object.
    """
    try:
        given = _decode_merge(json_text.checked(text)[0]).merge_properties
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("mergeProperties", "a list of objects with type and value is expected") from error
    if not given:
        metadata = {"field": "mergeProperties"}
        raise Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, "this event type needs mergeProperties", metadata=metadata)
    if len(given) > MAX_MERGED:
        raise invalid("mergeProperties", f"a merge connects at most {MAX_MERGED} identifiers")
    known = bytes(event.context)
    try:
        context = {} if known in _EMPTY else _decode_members(known)
        external = _decode_list(context.get("externalIds", ABSENT) or b"[]")
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("context", "an object is expected, and a list in its externalIds") from error
    external += [msgspec.Raw(msgspec.json.encode(_external_id(found))) for found in given]
    context["externalIds"] = msgspec.Raw(msgspec.json.encode(external))
    event.type, event.context = "identify", msgspec.Raw(msgspec.json.encode(context))
    if (fault := nesting_fault(event)) is not None:
        raise fault


def _read(item: Item, text: bytes) -> Item:
    if isinstance(item, ClientEvent) and item.type == "merge":
        try:
            merge_to_identify(item, text)
        except Fault as fault:
            return fault
    return item


def _external_id(found: _Property) -> _ExternalId:
    kind = found.type.lower()
    kind, text = _KINDS.get(kind, kind), "" if found.value is None else str(found.value)
    if not kind or not text:
        raise invalid("mergeProperties", "an identifier has a type and a value")
    return _ExternalId(text.strip().lower() if kind == "email" else text, kind)
