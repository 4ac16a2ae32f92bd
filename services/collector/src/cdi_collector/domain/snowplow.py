"""Snowplow's tracker protocol in Segment's words: one item of a payload becomes one event. Pure.

A parameter is either taken over into a field of the event or stays under its own name in ``context.snowplow``; none is dropped but those
that are empty. Source of the parameters' meanings: Snowplow's public tracker protocol.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Item, nesting_fault
from cdi_collector.domain.event_fields import invalid
from cdi_collector.domain.json_text import is_object
from cdi_collector.domain.snowplow_context import take_context
from cdi_collector.domain.snowplow_payload import Parameters, SelfDescribing, from_base64, self_describing
from cdi_kernel.clock import MILLISECONDS_FROM, parse_instant
from cdi_kernel.faults import Fault, InvalidArgument, Rejected

REDIRECT_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/uri_redirect/jsonschema/1-0-0"
"""What a redirect without an event of its own is recorded as."""

_EVENT_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/unstruct_event/"
_ENTITIES_SCHEMA: Final = "iglu:com.snowplowanalytics.snowplow/contexts/"
_IGLU: Final = re.compile(r"iglu:[A-Za-z0-9_.-]+/([A-Za-z0-9_-]+)/[A-Za-z0-9_-]+/[0-9]+-[0-9]+-[0-9]+")
_MILLISECONDS: Final = re.compile(r"-?[0-9]{1,15}")
_SECOND_MILLIS: Final = 1_000
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_INT64: Final = range(-(2**63), 2**63)
_OWN_MEMBERS: Final = ("entities", "network_userid")
_decode_entities: Final = msgspec.json.Decoder(list[SelfDescribing]).decode


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whom the request itself says an event to be of.

    Attributes:
        network_id: of the collector's cookie, brought or given with the answer; empty if there is none.
        known: the request brought the cookie.
        spare_id: made for this request, for an event that nobody is known to have sent.
    """

    network_id: str
    known: bool
    spare_id: str


@dataclass(frozen=True, slots=True)
class _Flat:
    """An event whose properties are parameters of their own.

    Attributes:
        name: the event's name; empty if the parameter ``named_by`` has it.
        texts: properties by parameter.
        numbers: the same, for those that are numbers.
        named_by: a parameter.
    """

    name: str
    texts: Mapping[str, str]
    numbers: Mapping[str, str]
    named_by: str = ""


_FLAT: Final[Mapping[str, _Flat]] = {
    "pp": _Flat(
        "Page Ping",
        {},
        {"pp_mix": "x_offset_min", "pp_max": "x_offset_max", "pp_miy": "y_offset_min", "pp_may": "y_offset_max"},
    ),
    "se": _Flat(
        "",
        {"se_ca": "category", "se_ac": "action", "se_la": "label", "se_pr": "property"},
        {"se_va": "value"},
        named_by="se_ac",
    ),
    "tr": _Flat(
        "Transaction",
        {"tr_id": "order_id", "tr_af": "affiliation", "tr_ci": "city", "tr_st": "state", "tr_co": "country", "tr_cu": "currency"},
        {"tr_tt": "total", "tr_tx": "tax", "tr_sh": "shipping"},
    ),
    "ti": _Flat(
        "Transaction Item",
        {"ti_id": "order_id", "ti_sk": "sku", "ti_nm": "name", "ti_ca": "category", "ti_cu": "currency"},
        {"ti_pr": "price", "ti_qu": "quantity"},
    ),
}


def read_event(parameters: Parameters, visitor: Visitor) -> Item:
    """The event of one item, or why it is none.

    Args:
        parameters: of the item.
        visitor: what the request says.
    """
    try:
        return _event(parameters, visitor)
    except Fault as fault:
        return fault


def redirected(parameters: Parameters, target: str) -> Parameters:
    """The parameters of a redirect: its own event if it has one, which then keeps the target as ``u``; else that it was followed."""
    if parameters.get("e"):
        return parameters
    inner = {"schema": REDIRECT_SCHEMA, "data": {"uri": target}}
    document = msgspec.json.encode({"schema": f"{_EVENT_SCHEMA}jsonschema/1-0-0", "data": inner}).decode()
    return {name: text for name, text in parameters.items() if name != "u"} | {"e": "ue", "ue_pr": document}


def _event(parameters: Parameters, visitor: Visitor) -> Item:
    rest = {name: text for name, text in parameters.items() if text}
    _check_text(rest)
    kind = rest.pop("e", "")
    if (read := _READERS.get(kind)) is None:
        raise _unknown(kind)
    event = ClientEvent(message_id=rest.pop("eid", None), user_id=rest.pop("uid", None))
    event.anonymous_id = _anonymous_id(event, rest, visitor)
    _take_times(event, rest)
    entities = _entities(rest)
    context = take_context(rest)
    read(event, kind, rest, context)
    own: dict[str, Any] = {"entities": entities} if entities is not None else {}
    if visitor.network_id:
        own["network_userid"] = visitor.network_id
    if snowplow := own | _renamed(rest):
        context["snowplow"] = snowplow
    event.context = msgspec.Raw(msgspec.json.encode(context)) if context else ABSENT
    return nesting_fault(event) or event


def _check_text(parameters: Parameters) -> None:
    try:
        "".join((*parameters, *parameters.values())).encode()
    except UnicodeEncodeError as error:
        text = "a parameter holds half of a surrogate pair"
        raise InvalidArgument(text, reason=error_pb2.ERROR_REASON_INVALID_ENCODING) from error


def _unknown(kind: str) -> Fault:
    if not kind:
        return Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, "a Snowplow event needs a type", metadata={"field": "e"})
    text = "the Snowplow protocol has no such event type"
    return Rejected(error_pb2.ERROR_REASON_UNKNOWN_EVENT_TYPE, text, metadata={"type": kind[:40]})


def _anonymous_id(event: ClientEvent, rest: dict[str, str], visitor: Visitor) -> str | None:
    """The tracker's id of the browser, else the network user id.

    A network user id that was made for this very request is the last resort: a server's tracker keeps no cookie, and would give its
    users a new id with every request. Where not even that is, the event gets an id that no other has.
    """
    given = rest.pop("duid", None) or rest.get("tnuid") or rest.get("nuid")
    if given is None and (visitor.known or event.user_id is None):
        given = visitor.network_id or str(event.message_id or visitor.spare_id)
    return given


def _take_times(event: ClientEvent, rest: dict[str, str]) -> None:
    """``dtm``, ``stm`` and ``ttm``: a true timestamp is the time of the event, whatever the device's clock says.

    What was sent before it happened is taken as sent when it happened: trackers cut ``stm`` to seconds. One that is off by more is a
    clock that was set in between, and is kept.
    """
    device, true = _needed_millis("dtm", rest), _needed_millis("ttm", rest)
    event.timestamp = _instant(true)
    event.original_timestamp = _instant(true if device is None else device)
    if (sent := _millis(rest.get("stm", ""))) is not None:
        if device is None or device - sent < _SECOND_MILLIS:
            del rest["stm"]
        event.sent_at = _instant(sent if device is None else max(sent, device))


def _needed_millis(field: str, rest: dict[str, str]) -> int | None:
    if (text := rest.pop(field, None)) is None:
        return None
    if (millis := _millis(text)) is None:
        raise invalid(field, f"{field} is not a number of milliseconds since 1970")
    return millis


def _millis(text: str) -> int | None:
    millis = int(text) if _MILLISECONDS.fullmatch(text) else None
    return millis if parse_instant(_instant(millis)) is not None else None


def _instant(millis: int | None) -> float | None:
    """Milliseconds as the number that ``parse_instant`` takes for this instant: it reads small numbers as seconds."""
    return millis if millis is None or abs(millis) >= MILLISECONDS_FROM else millis / 1_000


def _entities(rest: dict[str, str]) -> list[msgspec.Raw] | msgspec.Raw | None:
    """The entities of ``co`` and ``cx``, as they were sent; ``None`` if there are none."""
    found: list[msgspec.Raw] = []
    for field in ("co", "cx"):
        if (text := rest.pop(field, None)) is None:
            continue
        document = self_describing(field, from_base64(field, text) if field == "cx" else text.encode(), _ENTITIES_SCHEMA)
        try:
            _decode_entities(document.data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(field, f"{field} is not an array of self-describing JSONs") from error
        found.append(document.data)
    if len(found) < 2:
        return found[0] if found else None
    return [entity for array in found for entity in msgspec.json.decode(array, type=list[msgspec.Raw])]


def _read_page_view(event: ClientEvent, kind: str, rest: dict[str, str], context: dict[str, Any]) -> None:
    """A page view says what its page is both where Segment's page event does and where every event does."""
    event.type = "page"
    if page := context.get("page"):
        event.properties = msgspec.Raw(msgspec.json.encode(page))


def _read_self_describing(event: ClientEvent, kind: str, rest: dict[str, str], context: dict[str, Any]) -> None:
    field = "ue_px" if "ue_px" in rest else "ue_pr"
    if (text := rest.pop(field, None)) is None:
        raise _missing("ue_px")
    outer = self_describing(field, from_base64(field, text) if field == "ue_px" else text.encode(), _EVENT_SCHEMA)
    inner = self_describing(field, bytes(outer.data), "iglu:")
    if (schema := _IGLU.fullmatch(inner.schema)) is None:
        raise invalid(field, f"the schema in {field} is no Iglu URI")
    if not is_object(bytes(inner.data)):
        raise invalid(field, f"the event in {field} is not an object")
    event.type, event.event, event.schema_uri, event.properties = "self_describing", schema[1], inner.schema, inner.data


def _read_flat(event: ClientEvent, kind: str, rest: dict[str, str], context: dict[str, Any]) -> None:
    shape = _FLAT[kind]
    properties: dict[str, str | int | float] = {name: rest.pop(parameter) for parameter, name in shape.texts.items() if parameter in rest}
    for parameter, name in shape.numbers.items():
        if parameter in rest:
            properties[name] = _number(rest.pop(parameter))
    event.type = "track"
    event.event = shape.name or str(properties.get(shape.texts[shape.named_by], ""))
    if not event.event:
        raise _missing(shape.named_by)
    event.properties = msgspec.Raw(msgspec.json.encode(properties)) if properties else ABSENT


_Reader = Callable[[ClientEvent, str, dict[str, str], dict[str, Any]], None]
_READERS: Final[Mapping[str, _Reader]] = {"pv": _read_page_view, "ue": _read_self_describing, **dict.fromkeys(_FLAT, _read_flat)}


def _number(text: str) -> str | int | float:
    """The number that a text is, or the text if it is none that JSON and its readers can hold."""
    if (found := _NUMBER.fullmatch(text)) is None:
        return text
    if found[1] is None and found[2] is None:
        return whole if (whole := int(text)) in _INT64 else text
    number = float(text)
    return number if math.isfinite(number) else text


def _missing(field: str) -> Fault:
    metadata = {"field": field}
    return Rejected(error_pb2.ERROR_REASON_MISSING_FIELD, f"this Snowplow event needs {field}", metadata=metadata)


def _renamed(rest: dict[str, str]) -> dict[str, str]:
    """What is left, under names that are not those of ``context.snowplow`` itself."""
    for name in _OWN_MEMBERS:
        if name in rest:
            own = f"{name}_"
            while own in rest:
                own += "_"
            rest[own] = rest.pop(name)
    return rest
