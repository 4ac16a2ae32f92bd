"""Snowplow's tracker protocol as events: what each parameter becomes, what is refused, and what any input comes to."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.intake import Arrival, admit
from cdi_collector.domain.snowplow import REDIRECT_SCHEMA, Visitor, read_event, redirected
from cdi_collector.domain.snowplow_payload import PERSONAL, from_base64, raw_items, read_payload, without_person
from cdi_collector.domain.sources import Source
from cdi_kernel.faults import Fault, InvalidArgument
from cdi_kernel.ids import SourceId, WorkspaceId

RECEIVED_US = 1_795_295_211_000_000
BROWSER = Visitor("network-1", True, "spare-1")
STRANGER = Visitor("network-1", False, "spare-1")
NOBODY = Visitor("", False, "spare-1")

PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
UNSTRUCT = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"
CONTEXTS = "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"
ORDER = "iglu:com.acme/order/jsonschema/1-0-0"
PAGE_ENTITY = {"schema": "iglu:com.acme/page/jsonschema/2-0-0", "data": {"id": "p1"}}
CART_ENTITY = {"schema": "iglu:com.acme/cart/jsonschema/1-0-3", "data": {"items": [1, 2.5, {"sku": "é"}]}}


def plain(document: Any) -> str:
    return json.dumps(document)


def encoded(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def event_of(data: Any, schema: str = ORDER) -> dict[str, Any]:
    return {"schema": UNSTRUCT, "data": {"schema": schema, "data": data}}


def read(parameters: dict[str, str], visitor: Visitor = BROWSER) -> ClientEvent:
    item = read_event(parameters, visitor)
    assert isinstance(item, ClientEvent), str(item)
    return item


def refused(parameters: dict[str, str]) -> Fault:
    item = read_event(parameters, BROWSER)
    assert isinstance(item, Fault)
    return item


def admitted(item: ClientEvent | Fault) -> Event:
    source = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset())
    intake = admit([item], Arrival(source, RECEIVED_US, None, "", "", 8, lambda: "made-1"), {})
    assert [str(refusal.fault) for refusal in intake.refusals] == []
    (frames,) = intake.frames.values()
    return EventBatch.FromString(frames[0]).events[0]


def context(item: ClientEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(item.context))
    return found


def test_a_page_view_whole() -> None:
    item = read(
        {
            "e": "pv",
            "url": "https://ex.com/shop/a?utm_source=x#top",
            "page": "A",
            "refr": "https://google.com",
            "eid": "e1",
            "tv": "js-4.10.1",
            "tna": "sp",
            "aid": "shop",
            "p": "web",
            "cs": "windows-1252",
            "lang": "en-US",
            "res": "1280x720",
            "vp": "800x600",
            "ds": "800x3000",
            "tz": "Europe/Berlin",
            "ip": "203.0.113.9",
            "ua": "UA/1",
            "vid": "3",
            "sid": "s1",
            "duid": "d1",
            "uid": "u1",
            "dtm": "1795295210225",
            "stm": "1795295210236",
            "empty": "",
        }
    )
    page = {
        "url": "https://ex.com/shop/a?utm_source=x#top",
        "path": "/shop/a",
        "search": "?utm_source=x",
        "title": "A",
        "referrer": "https://google.com",
    }
    assert (item.type, item.message_id, item.user_id, item.anonymous_id) == ("page", "e1", "u1", "d1")
    assert (item.original_timestamp, item.sent_at, item.timestamp) == (1795295210225, 1795295210236, None)
    assert json.loads(bytes(item.properties)) == page
    assert context(item) == {
        "ip": "203.0.113.9",
        "userAgent": "UA/1",
        "locale": "en-US",
        "timezone": "Europe/Berlin",
        "page": page,
        "screen": {"width": 1280, "height": 720, "innerWidth": 800, "innerHeight": 600},
        "library": {"name": "snowplow-js", "version": "4.10.1", "namespace": "sp"},
        "snowplow": {
            "network_userid": "network-1",
            "aid": "shop",
            "p": "web",
            "cs": "windows-1252",
            "ds": "800x3000",
            "vid": "3",
            "sid": "s1",
        },
    }


@pytest.mark.parametrize(
    ("parameters", "name", "properties"),
    [
        (
            {"e": "pp", "pp_mix": "0", "pp_max": "12", "pp_miy": "-3", "pp_may": "4e2"},
            "Page Ping",
            {"x_offset_min": 0, "x_offset_max": 12, "y_offset_min": -3, "y_offset_max": 400.0},
        ),
        ({"e": "pp"}, "Page Ping", None),
        (
            {"e": "se", "se_ca": "shop", "se_ac": "add", "se_la": "l", "se_pr": "p", "se_va": "2.5"},
            "add",
            {"category": "shop", "action": "add", "label": "l", "property": "p", "value": 2.5},
        ),
        ({"e": "se", "se_ac": "add", "se_va": "1e400"}, "add", {"action": "add", "value": "1e400"}),
        ({"e": "se", "se_ac": "add", "se_va": "9223372036854775808"}, "add", {"action": "add", "value": "9223372036854775808"}),
        ({"e": "se", "se_ac": "add", "se_va": "0x1"}, "add", {"action": "add", "value": "0x1"}),
        (
            {"e": "tr", "tr_id": "007", "tr_af": "web", "tr_tt": "19.95", "tr_tx": "1", "tr_sh": "2", "tr_ci": "Bonn", "tr_cu": "EUR"},
            "Transaction",
            {"order_id": "007", "affiliation": "web", "total": 19.95, "tax": 1, "shipping": 2, "city": "Bonn", "currency": "EUR"},
        ),
        (
            {"e": "ti", "ti_id": "007", "ti_sk": "1", "ti_nm": "Cup", "ti_ca": "home", "ti_pr": "9.5", "ti_qu": "2", "ti_cu": "EUR"},
            "Transaction Item",
            {"order_id": "007", "sku": "1", "name": "Cup", "category": "home", "price": 9.5, "quantity": 2, "currency": "EUR"},
        ),
    ],
)
def test_events_of_parameters(parameters: dict[str, str], name: str, properties: dict[str, Any] | None) -> None:
    item = read(parameters)
    assert (item.type, item.event) == ("track", name)
    assert (json.loads(bytes(item.properties)) if bytes(item.properties) else None) == properties
    assert context(item) == {"snowplow": {"network_userid": "network-1"}}


DOCUMENT = {"revenue": 19.95, "name": "ÿ?>é", "none": None, "list": [1, {"a": []}]}


@pytest.mark.parametrize(
    "parameters",
    [
        {"ue_pr": plain(event_of(DOCUMENT))},
        {"ue_px": encoded(event_of(DOCUMENT))},
        {"ue_px": encoded(event_of(DOCUMENT)).rstrip("=")},
        {"ue_px": encoded(event_of(DOCUMENT)).replace("+", "-").replace("/", "_").rstrip("=")},
        {"ue_px": encoded(event_of(DOCUMENT)).replace("+", " ")},
    ],
)
def test_a_self_describing_event_keeps_its_schema_and_document(parameters: dict[str, str]) -> None:
    item = read({"e": "ue", **parameters})
    assert (item.type, item.event, item.schema_uri) == ("self_describing", "order", ORDER)
    assert json.loads(bytes(item.properties)) == DOCUMENT
    assert context(item) == {"snowplow": {"network_userid": "network-1"}}


@pytest.mark.parametrize(
    ("parameters", "entities"),
    [
        ({"co": plain({"schema": CONTEXTS, "data": [PAGE_ENTITY, CART_ENTITY]})}, [PAGE_ENTITY, CART_ENTITY]),
        ({"cx": encoded({"schema": CONTEXTS, "data": [PAGE_ENTITY]})}, [PAGE_ENTITY]),
        (
            {"cx": encoded({"schema": CONTEXTS, "data": [PAGE_ENTITY]}), "co": plain({"schema": CONTEXTS, "data": [CART_ENTITY]})},
            [CART_ENTITY, PAGE_ENTITY],
        ),
        ({"cx": encoded({"schema": CONTEXTS, "data": []})}, []),
    ],
)
def test_entities_are_kept_as_they_were_sent(parameters: dict[str, str], entities: list[Any]) -> None:
    item = read({"e": "pp", **parameters})
    assert context(item)["snowplow"] == {"entities": entities, "network_userid": "network-1"}


def test_members_of_ones_own_hide_no_parameter() -> None:
    item = read({"e": "pp", "entities": "a", "entities_": "b", "network_userid": "c"})
    assert context(item)["snowplow"] == {"network_userid": "network-1", "entities__": "a", "entities_": "b", "network_userid_": "c"}


@pytest.mark.parametrize(
    ("parameters", "visitor", "ids"),
    [
        ({"duid": "d", "nuid": "n", "uid": "u"}, BROWSER, ("u", "d")),
        ({"nuid": "n", "uid": "u"}, BROWSER, ("u", "n")),
        ({"nuid": "n", "tnuid": "t"}, BROWSER, (None, "t")),
        ({"uid": "u"}, BROWSER, ("u", "network-1")),
        ({"uid": "u"}, STRANGER, ("u", None)),
        ({}, STRANGER, (None, "network-1")),
        ({"uid": "u"}, NOBODY, ("u", None)),
        ({}, NOBODY, (None, "e1")),
        ({"eid": ""}, NOBODY, (None, "spare-1")),
    ],
)
def test_whose_an_event_is(parameters: dict[str, str], visitor: Visitor, ids: tuple[str | None, str | None]) -> None:
    item = read({"e": "pv", "eid": "e1", **parameters}, visitor)
    assert (item.user_id, item.anonymous_id) == ids
    admitted(item)


def test_an_anonymous_event_has_nothing_that_recognises_a_person() -> None:
    personal = {name: f"secret-{name}" for name in PERSONAL}
    item = read(dict(without_person({"e": "pv", "eid": "e1", "p": "web", **personal})), NOBODY)
    assert context(item) == {"snowplow": {"p": "web"}}
    assert b"secret" not in admitted(item).SerializeToString()


@pytest.mark.parametrize(
    ("times", "original_us", "event_us"),
    [
        ({}, None, RECEIVED_US),
        ({"dtm": "1795295210225", "stm": "1795295210236"}, 1795295210225000, RECEIVED_US - 11_000),
        ({"dtm": "1795295210225", "stm": "later"}, 1795295210225000, 1795295210225000),
        # Sent before it happened.
        ({"dtm": "1795295210225", "stm": "1795295210000"}, 1795295210225000, RECEIVED_US),
        ({"dtm": "1795295210225", "stm": "1795290000000"}, 1795295210225000, RECEIVED_US),
        # A device that thinks it is 1970.
        ({"dtm": "5000", "stm": "7500"}, 5_000_000, RECEIVED_US - 2_500_000),
        ({"dtm": "1795295210225", "stm": "1795295210236", "ttm": "1767323045000"}, 1795295210225000, 1767323045000000),
        ({"stm": "1795295210236", "ttm": "1767323045000"}, 1767323045000000, 1767323045000000),
    ],
)
def test_times(times: dict[str, str], original_us: int | None, event_us: int) -> None:
    event = admitted(read({"e": "pv", **times}))
    assert (event.original_time.ToMicroseconds() if event.HasField("original_time") else None) == original_us
    assert event.event_time.ToMicroseconds() == event_us


DEEP: Any = json.loads('{"a":' * 70 + "1" + "}" * 70)


@pytest.mark.parametrize(
    ("parameters", "reason", "field"),
    [
        ({}, "missing_field", "e"),
        ({"e": "xx"}, "unknown_event_type", None),
        ({"e": "se", "se_ca": "shop"}, "missing_field", "se_ac"),
        ({"e": "ue"}, "missing_field", "ue_px"),
        ({"e": "ue", "ue_px": "a"}, "malformed_payload", "ue_px"),
        ({"e": "ue", "ue_px": "é!"}, "malformed_payload", "ue_px"),
        ({"e": "ue", "ue_px": "bm8gSlNPTg"}, "malformed_payload", "ue_px"),
        ({"e": "ue", "ue_px": base64.b64encode(b'{"\xff":1}').decode()}, "invalid_encoding", "ue_px"),
        ({"e": "ue", "ue_pr": "{"}, "malformed_payload", "ue_pr"),
        ({"e": "ue", "ue_pr": "[]"}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain(event_of({}))[:-1] + ',"n":1e999}'}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain({"schema": ORDER, "data": {"schema": ORDER, "data": {}}})}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain({"schema": UNSTRUCT, "data": {"data": {}}})}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain(event_of({}, "iglu:com.acme/order"))}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain(event_of([1]))}, "invalid_field", "ue_pr"),
        ({"e": "ue", "ue_pr": plain(event_of(DEEP))}, "nesting_too_deep", None),
        ({"e": "ue", "ue_pr": "[" * 5_000 + "]" * 5_000}, "nesting_too_deep", "ue_pr"),
        ({"e": "pv", "co": plain({"schema": CONTEXTS, "data": {}})}, "invalid_field", "co"),
        ({"e": "pv", "co": plain({"schema": CONTEXTS, "data": [{"data": {}}]})}, "invalid_field", "co"),
        ({"e": "pv", "cx": encoded({"schema": CONTEXTS, "data": [{"schema": ORDER, "data": DEEP}]})}, "nesting_too_deep", None),
        ({"e": "pv", "cx": "*"}, "malformed_payload", "cx"),
        ({"e": "pv", "dtm": "yesterday"}, "invalid_field", "dtm"),
        ({"e": "pv", "dtm": "١٢"}, "invalid_field", "dtm"),
        ({"e": "pv", "ttm": "999999999999999"}, "invalid_field", "ttm"),
        ({"e": "pv", "page": "\ud83d"}, "invalid_encoding", None),
    ],
)
def test_what_is_no_event(parameters: dict[str, str], reason: str, field: str | None) -> None:
    fault = refused(parameters)
    assert (fault.reason_name, fault.metadata.get("field")) == (reason, field)


def test_a_parameter_in_another_form_stays_as_it_is() -> None:
    item = read({"e": "pv", "res": "wide", "vp": "1x", "tv": "mine", "url": "http://[", "stm": "?"})
    assert context(item) == {
        "page": {"url": "http://["},
        "snowplow": {"network_userid": "network-1", "res": "wide", "vp": "1x", "tv": "mine", "stm": "?"},
    }


@pytest.mark.parametrize(("sent", "kept"), [("1795295210236", False), ("1795295210000", False), ("1795290000000", True)])
def test_a_sent_time_is_kept_where_it_cannot_be_one(sent: str, kept: bool) -> None:
    item = read({"e": "pv", "dtm": "1795295210225", "stm": sent})
    assert ("stm" in context(item)["snowplow"]) is kept


def test_a_redirect_is_an_event_or_goes_with_one() -> None:
    alone = read(dict(redirected({"u": "https://ex.com/?a=b", "aid": "shop"}, "https://ex.com/?a=b")))
    assert (alone.type, alone.event, alone.schema_uri) == ("self_describing", "uri_redirect", REDIRECT_SCHEMA)
    assert json.loads(bytes(alone.properties)) == {"uri": "https://ex.com/?a=b"}
    assert context(alone)["snowplow"] == {"network_userid": "network-1", "aid": "shop"}
    beside = read(dict(redirected({"u": "https://ex.com/", "e": "se", "se_ac": "click"}, "https://ex.com/")))
    assert (beside.event, context(beside)["snowplow"]["u"]) == ("click", "https://ex.com/")


def payload(*items: Any, schema: str = PAYLOAD) -> bytes:
    return json.dumps({"schema": schema, "data": items}).encode()


def test_items_of_a_payload() -> None:
    assert read_payload(payload({"e": "pv", "n": "é"}, {})) == [{"e": "pv", "n": "é"}, {}]
    assert read_payload(payload({"e": "pv", "dtm": 1795295210225, "f": 1.5, "b": True, "none": None})) == [
        {"e": "pv", "dtm": "1795295210225", "f": "1.5", "b": "true"}
    ]


def test_a_bad_item_costs_only_itself() -> None:
    body = payload({"e": "pv"}, 7, {"a": {"b": 1}}, {"a": "\ud83d"}, {"e": "pp"})
    body = body.replace(b"7", b'{"n": 1e999}, 7')
    items = read_payload(body)
    assert [item if not isinstance(item, Fault) else item.reason_name for item in items] == [
        {"e": "pv"},
        "invalid_field",
        "malformed_payload",
        "invalid_field",
        {"a": "�"},
        {"e": "pp"},
    ]
    assert list(raw_items(body, anonymous=False))[1:4] == [b'{"n": 1e999}', b"7", b'{"a": {"b": 1}}']


def test_refused_items_of_nobody_are_kept_without_what_recognises_a_person() -> None:
    body = payload({"e": "xx", "duid": "d", "uid": "u", "ip": "1.2.3.4", "x": {"y": 1}}, "d")
    assert list(raw_items(body, anonymous=True)) == [b'{"e":"xx","x":{"y": 1}}', b""]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_payload"),
        (b"{", "malformed_payload"),
        (b"[]", "malformed_payload"),
        (b'{"data":[]}', "malformed_payload"),
        (payload(schema="iglu:com.acme/x/jsonschema/1-0-0"), "malformed_payload"),
        (payload({"n": 1}, schema="iglu:com.acme/x/jsonschema/1-0-0"), "malformed_payload"),
        (b'{"schema":"%s","data":{}}' % PAYLOAD.encode(), "malformed_payload"),
        (b'{"schema":"\xff","data":[]}', "invalid_encoding"),
        (b"[" * 5_000 + b"]" * 5_000, "nesting_too_deep"),
    ],
)
def test_what_is_no_payload(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_payload(body)
    assert raised.value.reason_name == reason


NAMES = st.sampled_from(
    ["e", "eid", "uid", "duid", "nuid", "dtm", "stm", "ttm", "url", "page", "res", "vp", "tv", "tna", "se_ac", "se_va", "ti_pr", "x"]
)
TEXTS = (
    st.text(st.characters(codec=None), max_size=30)
    | st.sampled_from(["pv", "pp", "ue", "se", "tr", "ti", "1795295210225", "1e5", "-1", "1280x720", "http://[::1", "js-1"])
    | st.from_regex(r"-?[0-9]+(\.[0-9]+)?([eE][0-9]+)?", fullmatch=True)
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["schema", "data", "a"]), inner, max_size=3)
        | inner.map(event_of)
        | st.lists(inner, max_size=2).map(lambda data: {"schema": CONTEXTS, "data": data})
    ),
    max_leaves=10,
)
JSONS = DOCUMENTS.map(json.dumps) | st.binary(max_size=50).map(lambda data: data.decode("latin-1"))
ENCODED = JSONS.map(lambda text: base64.urlsafe_b64encode(text.encode()).decode()) | st.binary(max_size=50).map(
    lambda data: base64.b64encode(data).decode()
)


@given(
    st.dictionaries(NAMES | st.text(st.characters(codec=None), max_size=5), TEXTS),
    st.fixed_dictionaries({}, optional={"ue_px": ENCODED | TEXTS, "ue_pr": JSONS | TEXTS, "cx": ENCODED | TEXTS, "co": JSONS | TEXTS}),
    st.sampled_from([BROWSER, STRANGER, NOBODY]),
)
def test_any_parameters_are_an_event_of_sound_json_or_a_fault(flat: dict[str, str], documents: dict[str, str], visitor: Visitor) -> None:
    item = read_event(flat | documents, visitor)
    if isinstance(item, Fault):
        return
    for field in (item.properties, item.context):
        if bytes(field):
            assert isinstance(json.loads(bytes(field).decode()), dict)
    source = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset())
    admit([item], Arrival(source, RECEIVED_US, None, "", "", 8, lambda: "made-1"), {})


@given(st.binary(max_size=200))
def test_any_bytes_in_base64_are_an_event_or_a_fault(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert from_base64("ue_px", text) == data
    assert from_base64("ue_px", base64.urlsafe_b64encode(data).decode().rstrip("=")) == data
    assert isinstance(read_event({"e": "ue", "ue_px": text}, BROWSER), Fault)


@given(st.lists(DOCUMENTS, max_size=4), st.binary(max_size=20), st.booleans())
def test_any_body_is_a_payload_or_a_fault(items: list[Any], noise: bytes, anonymous: bool) -> None:
    for body in (payload(*items), payload(*items).replace(b'"a"', noise), noise):
        try:
            found = read_payload(body)
        except Fault:
            continue
        assert len(raw_items(body, anonymous=anonymous)) == len(found)
        for item in found:
            if not isinstance(item, Fault):
                msgspec.json.encode(item)
                read_event(item, BROWSER)
