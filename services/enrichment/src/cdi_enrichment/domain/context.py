"""The parts of an event's JSON that the pipeline reads, decoded at most once and tolerantly.

A member of the wrong JSON type counts as absent: what a stranger's SDK puts into ``context`` never stops an event. Only bytes
that are no JSON object at all are refused.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Rejected

S = TypeVar("S", bound=msgspec.Struct)

_ABSENT: Final = msgspec.Raw()


class Page(msgspec.Struct, frozen=True, gc=False):
    """``context.page``; also the members of a page event's properties that mean the same."""

    url: str | None = None
    referrer: str | None = None
    search: str | None = None


class Campaign(msgspec.Struct, frozen=True, gc=False):
    """``context.campaign``: the utm parameters without their prefix."""

    name: str | None = None
    source: str | None = None
    medium: str | None = None
    term: str | None = None
    content: str | None = None


class ExternalIdentifier(msgspec.Struct, frozen=True, gc=False):
    """One of ``context.externalIds``."""

    id: str | int | None = None
    type: str | None = None
    collection: str | None = None
    encoding: str | None = None


class Device(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``context.device``."""

    id: str | None = None
    type: str | None = None
    advertising_id: str | None = None
    ad_tracking_enabled: bool | None = None
    token: str | None = None


class Contact(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An object that may hold a person's e-mail address: traits or properties; in ``context.traits`` also Segment's cross-domain id."""

    email: str | None = None
    cross_domain_id: str | None = None


class GoogleAnalytics(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``context.integrations["Google Analytics"]``."""

    client_id: str | None = None


class Integrations(msgspec.Struct, frozen=True, gc=False):
    """``context.integrations``."""

    google_analytics: GoogleAnalytics | None = msgspec.field(name="Google Analytics", default=None)


class Braze(msgspec.Struct, frozen=True, gc=False):
    """``context.Braze``."""

    braze_id: str | None = None


class EventContext(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the pipeline reads of ``context``. What it says of consent stays as it was sent: most people answer alike."""

    ip: str | None = None
    user_agent: str | None = None
    page: Page | None = None
    campaign: Campaign | None = None
    consent: msgspec.Raw = _ABSENT
    consent_management: msgspec.Raw = _ABSENT
    external_ids: list[ExternalIdentifier] | None = None
    device: Device | None = None
    traits: Contact | None = None
    integrations: Integrations | None = None
    braze: Braze | None = msgspec.field(name="Braze", default=None)


class _ContextTraits(msgspec.Struct, frozen=True):
    traits: msgspec.Raw = _ABSENT


NOTHING: Final = EventContext()
_CONTACT: Final = msgspec.json.Decoder(Contact)
_CONTEXT: Final = msgspec.json.Decoder(EventContext)
_PAGE: Final = msgspec.json.Decoder(Page)
_TRAITS: Final = msgspec.json.Decoder(_ContextTraits)


def read_context(context: bytes) -> EventContext:
    """The known members of an event's context.

    Raises:
        Rejected: the bytes are no JSON object.
    """
    return _read(_CONTEXT, EventContext, context, "context") if context else NOTHING


def read_member(decoder: msgspec.json.Decoder[S], kind: type[S], document: bytes) -> S:
    """An object within the context as the struct that ``decoder`` makes of it, tolerantly. Raises as ``read_context``."""
    return _read(decoder, kind, document, "context")


def read_page(properties: bytes) -> Page:
    """``url``, ``referrer`` and ``search`` of a page event's properties. Raises as ``read_context``."""
    return _read(_PAGE, Page, properties, "properties") if properties else Page()


def read_email(document: bytes, field: str) -> str | None:
    """The member ``email`` of traits or properties; looks before it decodes. Raises as ``read_context``."""
    if document.find(b'"email"') < 0:  # ``in`` would first try to take the pattern for a number
        return None
    return _read(_CONTACT, Contact, document, field).email


def context_traits(context: bytes) -> bytes:
    """The JSON object ``context.traits`` as it was sent, empty when absent: where RudderStack's SDKs put an identify's traits."""
    try:
        traits = bytes(_TRAITS.decode(context).traits)
    except (msgspec.MsgspecError, RecursionError):
        return b""
    return traits if traits.startswith(b"{") else b""


def _read(decoder: msgspec.json.Decoder[S], kind: type[S], document: bytes, field: str) -> S:
    """Decodes strictly, which is the fast way, and member by member where that fails."""
    try:
        return decoder.decode(document)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(field) from error
    try:
        found = msgspec.json.decode(document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(field) from error
    if not isinstance(found, dict):
        raise _malformed(field)
    return _lenient_struct(kind, found)


def _malformed(field: str) -> Rejected:
    return Rejected(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, f"{field} is not a JSON object", metadata={"field": field})


def _lenient_struct(kind: type[S], found: dict[str, Any]) -> S:
    """A struct of the members that have the right type; the others keep their defaults."""
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in found:
            values[field.name] = _lenient(types[field.name], found[field.encode_name])
    return kind(**values)


def _lenient(expected: Any, value: Any) -> Any:
    """``value`` as one of the types of an optional field, ``None`` if it is none of them."""
    if expected is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))
    for option in get_args(expected):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            if isinstance(value, dict):
                return _lenient_struct(option, value)
        elif get_origin(option) is list:
            if isinstance(value, list):
                (item,) = get_args(option)
                return [_lenient_struct(item, one) for one in value if isinstance(one, dict)]
        elif get_origin(option) is dict:
            if isinstance(value, dict):
                _, item = get_args(option)
                return {key: one for key, one in value.items() if type(one) is item}
        elif type(value) is option:
            return value
    return None
