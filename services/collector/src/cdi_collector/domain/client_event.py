"""An event as a client gives it, before any rule: the shape that every door and every SDK family is brought to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.limits import MAX_NESTING
from cdi_collector.faults import malformed
from cdi_kernel.faults import Fault, InvalidArgument, Rejected

Identifier = str | int | float | None
Time = str | int | float | None
ABSENT: Final = msgspec.Raw(b"")

if TYPE_CHECKING:
    JsonText: TypeAlias = msgspec.Raw | bytes
else:
    JsonText = msgspec.Raw  # what msgspec decodes into; it knows no union with bytes


class Instant(int):
    """A time that needs no reading: microseconds since 1970, within what a ``Timestamp`` can say."""

    __slots__ = ()


class ClientEvent(msgspec.Struct, rename="camel", gc=False):
    """One event in Segment's words; ``None`` and an empty ``Raw`` mean absent, and so does JSON's null.

    Objects stay the bytes that the client sent. Doors see to it that they are JSON and not nested too deep. A door that has them as
    ``bytes`` already gives them so, for ``bytes(...)``, by which everybody reads them, then copies nothing.
    """

    type: str | None = None
    message_id: Identifier = None
    event: str | None = None
    name: str | None = None
    category: str | None = None
    user_id: Identifier = None
    anonymous_id: Identifier = None
    group_id: Identifier = None
    previous_id: Identifier = None
    schema_uri: str | None = None
    timestamp: Time = None
    original_timestamp: Time = None
    sent_at: Time = None
    properties: JsonText = ABSENT
    traits: JsonText = ABSENT
    context: JsonText = ABSENT
    integrations: JsonText = ABSENT


Item = ClientEvent | Fault
"""An event, or why what stands in its place is none."""


class Batch(msgspec.Struct, rename="camel", gc=False):
    """The body of ``/v1/batch``."""

    batch: list[ClientEvent]
    write_key: str | None = None
    sent_at: Time = None
    context: msgspec.Raw = ABSENT
    integrations: msgspec.Raw = ABSENT


class RawBatch(msgspec.Struct, rename="camel", gc=False):
    """The same body with its items unread: for a batch with an item that is no event, and to keep what was refused."""

    batch: list[msgspec.Raw]
    write_key: str | None = None
    sent_at: Time = None
    context: msgspec.Raw = ABSENT
    integrations: msgspec.Raw = ABSENT


class Single(ClientEvent, rename="camel", gc=False):
    """The body of a path for one event."""

    write_key: str | None = None


_OBJECTS: Final = ("properties", "traits", "context", "integrations")
# The objects of an event are one level below the body that is an event, and three below that of a batch.
_SINGLE_LEVELS: Final = MAX_NESTING + 1
_BATCH_LEVELS: Final = MAX_NESTING + 3
_PATH: Final = re.compile(r"at `\$\.?(?:\[\.\.\.\]\.?)?([A-Za-z_.\[\]]*)`")
_decode_batch: Final = msgspec.json.Decoder(Batch).decode
_decode_raw_batch: Final = msgspec.json.Decoder(RawBatch).decode
_decode_single: Final = msgspec.json.Decoder(Single).decode
_decode_event: Final = msgspec.json.Decoder(ClientEvent).decode


def read_single(body: bytes) -> Single:
    """The event of a single-event path.

    Raises:
        InvalidArgument: the body is not JSON, not an object, or a field has the wrong type.
    """
    if json_text.is_sound(body, _SINGLE_LEVELS):
        with contextlib.suppress(msgspec.DecodeError):
            return _decode_single(body)
    text, fault = json_text.checked(body)
    if fault is not None:
        raise fault
    try:
        event = _decode_single(text)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("the body is not JSON") from error
    if (fault := nesting_fault(event)) is not None:
        raise fault
    return event


def read_batch(body: bytes) -> tuple[Batch | RawBatch, Sequence[Item]]:
    """The body of a batch and its items, each an event or the reason why it is none.

    Raises:
        InvalidArgument: the body as a whole is not JSON, or not an object with an array ``batch``.
    """
    if json_text.is_sound(body, _BATCH_LEVELS):
        with contextlib.suppress(msgspec.DecodeError):
            whole = _decode_batch(body)
            return whole, whole.batch
    text, fault = json_text.checked(body)
    if fault is not None and fault.reason != error_pb2.ERROR_REASON_INVALID_FIELD:
        raise fault
    return _read_one_by_one(text)


def raw_items(body: bytes) -> Sequence[bytes]:
    """The items of a batch that ``read_batch`` took, as bytes."""
    return [bytes(item) for item in _decode_raw_batch(json_text.checked(body)[0]).batch]


def nesting_fault(event: ClientEvent) -> Fault | None:
    """Why an event is refused for an object that is nested too deep, or ``None``."""
    for field, raw in zip(_OBJECTS, (event.properties, event.traits, event.context, event.integrations), strict=True):
        if raw is not ABSENT and (fault := depth_fault(field, bytes(raw))) is not None:
            return fault
    return None


def depth_fault(field: str, text: bytes) -> Fault | None:
    """Why the checked JSON of a field is refused for being nested too deep, or ``None``."""
    if json_text.is_shallow(text) or not json_text.too_deep(text):
        return None
    metadata = {"limit": str(MAX_NESTING)}
    return Rejected(error_pb2.ERROR_REASON_NESTING_TOO_DEEP, f"{field} is nested too deep", metadata=metadata)


def wrong_type(error: msgspec.ValidationError) -> Fault:
    """The fault for a field of the wrong JSON type, naming the field."""
    path = _PATH.search(str(error))
    if path is None or not path[1]:
        return malformed("a JSON object is expected")
    return InvalidArgument("a field has the wrong type", reason=error_pb2.ERROR_REASON_INVALID_FIELD, metadata={"field": path[1]})


def _read_one_by_one(text: bytes) -> tuple[RawBatch, Sequence[Item]]:
    try:
        whole = _decode_raw_batch(text)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("the body is not JSON") from error
    if (fault := json_text.check(b"[%s,%s]" % (bytes(whole.context) or b"0", bytes(whole.integrations) or b"0"))) is not None:
        raise fault
    return whole, [_item(bytes(raw)) for raw in whole.batch]


def _item(text: bytes) -> Item:
    if (fault := json_text.check(text)) is not None:
        return fault
    try:
        event = _decode_event(text)
    except msgspec.ValidationError as error:
        return wrong_type(error)
    except (msgspec.DecodeError, RecursionError):
        return malformed("the event is not JSON")
    return nesting_fault(event) or event
