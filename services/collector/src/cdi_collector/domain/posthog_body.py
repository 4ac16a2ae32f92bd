"""The bodies of PostHog's SDKs: what they wrap their JSON into, and which JSON it is.

No header and no parameter is believed: base64 and forms are found by looking at the bytes, and gzip has been, before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import base64_text, json_text, posthog
from cdi_collector.domain.client_event import Item, Time, wrong_type
from cdi_collector.domain.event_fields import too_many
from cdi_collector.domain.json_members import checked_whole
from cdi_collector.domain.limits import MAX_BATCH_EVENTS, MAX_NESTING
from cdi_collector.faults import malformed
from cdi_kernel.clock import parse_instant
from cdi_kernel.faults import Fault, InvalidArgument, Unauthenticated

# Properties are one level below an event, which is two below a batch.
_LEVELS: Final = MAX_NESTING + 3
_JSON: Final = (b"{", b"[")
_MAX_FORM_FIELDS: Final = 16


class _Whole(msgspec.Struct, gc=False):
    """A body that is an object: a batch, or a single event, which has no ``batch``."""

    batch: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    api_key: str | None = None
    token: str | None = None
    sent_at: Time = None


@dataclass(frozen=True, slots=True)
class Posted:
    """A body, read.

    Attributes:
        items: the events, or why what stands in the place of one is none.
        write_key: of the batch, else of its events; ``None`` if there is none.
        sent_us: when the client sent it, by its clock; ``None`` if it did not say.
        raws: the JSON of the items; ``None`` for a single event.
    """

    items: Sequence[Item]
    write_key: str | None
    sent_us: int | None
    raws: Sequence[msgspec.Raw] | None


_decode_whole: Final = msgspec.json.Decoder(_Whole).decode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def unwrapped(body: bytes) -> bytes:
    """The JSON in a body: as it is, in base64, or as member ``data`` of a form, in base64 or not; a form may be in base64 too.

    Raises:
        InvalidArgument: it is none of these. gzip within base64 is none: it would be unbounded, and no SDK sends it.
    """
    for _ in range(2):
        if body.lstrip()[:1] in _JSON:
            return body
        body = _form_member(body)
        if body.lstrip()[:1] not in _JSON:
            with contextlib.suppress(InvalidArgument):
                body = base64_text.decoded(body)
    if body.lstrip()[:1] in _JSON:
        return body
    raise malformed("neither JSON, nor JSON in base64 or in the member data of a form")


def read(text: bytes, sent_us: int | None = None, unnamed: str | None = None) -> Posted:
    """The events of a body: one, an array of them, or a batch.

    Args:
        text: from ``unwrapped``.
        sent_us: when the client sent it, as the URL says it; the body wins.
        unnamed: the name of an event that has none; ``None`` where every event needs one.

    Raises:
        InvalidArgument: the body as a whole is not JSON of one of these forms.
        Unauthenticated: the body has no key of its own, and its events have different ones.
        TooLarge: it has too many events.
    """
    text, sound = checked_whole(text, _LEVELS)
    whole, raws = _taken_apart(text)
    if len(raws) > MAX_BATCH_EVENTS:
        raise too_many(len(raws))
    captures = [_capture(raw, sound) for raw in raws]
    key = whole.api_key or whole.token or _shared_key(captures)
    given_us = parse_instant(whole.sent_at)
    sent_us = sent_us if given_us is None else given_us
    items = [found if isinstance(found, Fault) else posthog.translated(found, key, sent_us, unnamed) for found in captures]
    return Posted(items, key, sent_us, None if whole.batch is msgspec.UNSET else raws)


def _taken_apart(text: bytes) -> tuple[_Whole, Sequence[msgspec.Raw]]:
    try:
        if text.lstrip()[:1] == b"[":
            raws = _decode_items(text)
            return _Whole(raws), raws
        whole = _decode_whole(text)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed("the body is not JSON") from error
    return whole, (msgspec.Raw(text.strip()),) if whole.batch is msgspec.UNSET else whole.batch


def _capture(raw: msgspec.Raw, sound: bool) -> posthog.Capture | Fault:
    if not sound and (fault := json_text.check(bytes(raw))) is not None:
        return fault
    return posthog.read_capture(raw)


def _shared_key(captures: Sequence[posthog.Capture | Fault]) -> str | None:
    keys = {found.key for found in captures if not isinstance(found, Fault)} - {None}
    if len(keys) > 1:
        raise Unauthenticated(error_pb2.ERROR_REASON_UNKNOWN_WRITE_KEY, "the events of a body have one write key")
    return keys.pop() if keys else None


def _form_member(body: bytes) -> bytes:
    """The member ``data`` of a form, or the body, if it is no form."""
    for field in body.split(b"&", _MAX_FORM_FIELDS):
        name, equals, value = field.partition(b"=")
        if name.strip() == b"data" and equals:
            return unquote_to_bytes(value)
    return body
