"""Reading the JSON of an event: tolerant of types, strict about JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.consent.v1.consent_service_pb2 import EvaluateConsentRequest
from cdi.event.v1.event_pb2 import EVENT_TYPE_SELF_DESCRIBING
from cdi_enrichment import convert
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.consent import NOTHING_SAID, Carried, carried, read_consent
from cdi_enrichment.domain.context import context_traits, read_context, read_email, read_page
from cdi_enrichment.domain.passage import Passage, Subject, device_address
from cdi_kernel.faults import Rejected
from cdi_testing import builders
from cdi_testing.builders import track

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
NAMES = ["ip", "userAgent", "page", "campaign", "consent", "externalIds", "device", "traits", "library"]
INNER = [
    "url",
    "referrer",
    "search",
    "name",
    "source",
    "categoryPreferences",
    "id",
    "type",
    "collection",
    "advertisingId",
    "email",
    "token",
]
CONTEXTS = st.dictionaries(
    st.sampled_from(NAMES),
    JSON | st.dictionaries(st.sampled_from(INNER), JSON, max_size=6) | st.lists(st.dictionaries(st.sampled_from(INNER), JSON), max_size=3),
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_known_members_are_read() -> None:
    context = read_context(
        encoded(
            {
                "ip": "8.8.8.8",
                "userAgent": "Mozilla/5.0",
                "page": {"url": "https://a.example/", "referrer": "https://b.example/", "search": "?x=1", "title": "T"},
                "consent": {"categoryPreferences": {"advertising": True, "analytics": False}},
                "externalIds": [{"id": "abc", "type": "GA_Client_ID", "collection": "users", "encoding": "none"}],
                "device": {"id": "d", "type": "ios", "advertisingId": "ad", "adTrackingEnabled": True, "token": "t"},
                "traits": {"email": "a@b.de", "name": "A"},
                "other": [1, {"deep": None}],
            }
        )
    )
    assert (context.ip, context.user_agent) == ("8.8.8.8", "Mozilla/5.0")
    assert context.page is not None
    assert context.page.referrer == "https://b.example/"
    assert read_consent(bytes(context.consent)).answers == (("advertising", True), ("analytics", False))
    assert context.external_ids is not None
    assert context.external_ids[0].type == "GA_Client_ID"
    assert context.device is not None
    assert context.device.ad_tracking_enabled is True
    assert context.traits is not None
    assert context.traits.email == "a@b.de"


@pytest.mark.parametrize(
    "wrong",
    [{"ip": 5}, {"page": "x"}, {"page": {"url": []}}, {"device": [1]}, {"traits": {"email": {}}}, {"externalIds": "x"}, {"consent": None}],
)
def test_a_member_of_the_wrong_type_is_ignored_and_the_others_are_kept(wrong: dict[str, Any]) -> None:
    context = read_context(encoded({"userAgent": "Mozilla/5.0"} | wrong))
    assert context.user_agent == "Mozilla/5.0"
    assert context.ip is None


def test_within_a_map_or_list_the_right_entries_are_kept() -> None:
    context = read_context(
        encoded(
            {"consent": {"categoryPreferences": {"a": True, "b": "yes", "c": 1}}, "externalIds": [{"id": "x", "type": 5}, 7, {"id": 9}]}
        )
    )
    assert read_consent(bytes(context.consent)).answers == (("a", True),)
    assert context.external_ids is not None
    assert [given.id for given in context.external_ids] == ["x", 9]


@pytest.mark.parametrize("broken", [b"[]", b"7", b"null", b"{", b'{"ip":"\xff"}', b'{"ip": tru}', b"[" * 5000, b"\xff"])
def test_what_is_no_json_object_is_refused(broken: bytes) -> None:
    with pytest.raises(Rejected) as refusal:
        read_context(broken)
    assert refusal.value.reason_name == "malformed_payload"


def test_consent_is_refused_when_it_is_no_json() -> None:
    with pytest.raises(Rejected):
        read_consent(b'{"categoryPreferences": {"\xff": true}}')


@pytest.mark.parametrize(
    "nothing", [b"", b"null", b"5", b"{}", b'{"categoryPreferences": null}', b'{"categoryPreferences": []}', b'{"tcf": 5}']
)
def test_consent_without_answers(nothing: bytes) -> None:
    assert read_consent(nothing) is NOTHING_SAID


def test_an_object_without_answers_is_an_answer() -> None:
    assert read_consent(b'{"categoryPreferences": {}}') == Carried(is_answer=True)


def test_every_form_of_consent_reaches_the_service_that_reads_it() -> None:
    context = {
        "consent": {
            "tcf": "CP...", "gpp": "DBAA", "usPrivacy": "1YNN", "googleConsentMode": {"ad_storage": "denied"}, "onetrust": "groups=C1:1",
            "cookiebot": {"marketing": False}, "categoryPreferences": {"ad": True},
        },
        "consentManagement": {"deniedConsentIds": ["ad"]},
    }  # fmt: skip
    event = builders.track(context=context)
    event.signals.global_privacy_control = True
    said = carried(event, read_context(event.context))
    assert said.answers == (("ad", True),)
    assert said.signals == (
        ("tcf", b"CP..."),
        ("gpp", b"DBAA"),
        ("us_privacy", b"1YNN"),
        ("google_consent_mode", b'{"ad_storage": "denied"}'),
        ("onetrust", b"groups=C1:1"),
        ("cookiebot", b'{"marketing": false}'),
        ("rudderstack", b'{"deniedConsentIds": ["ad"]}'),
        ("gpc", b"1"),
    )
    (field,) = convert.consent_inputs([Passage(event, Place(1, 0), 0, subject=Subject(said=said))])
    (given_,) = EvaluateConsentRequest.FromString(field).inputs
    assert [(one.kind, one.raw) for one in given_.signals] == list(said.signals)
    assert [(one.category, one.granted) for one in given_.preferences] == [("ad", True)]
    assert given_.event_time == event.event_time


def test_snowplows_preferences_are_a_signal_and_nothing_else_is() -> None:
    plain = builders.track()
    assert carried(plain, read_context(plain.context)) is NOTHING_SAID
    event = builders.track(properties={"eventType": "deny_all"})
    event.type = EVENT_TYPE_SELF_DESCRIBING
    event.schema_uri = "iglu:com.snowplowanalytics.snowplow/consent_preferences/jsonschema/1-0-0"
    assert carried(event, read_context(event.context)).signals == (("snowplow_preferences", event.properties),)


@given(CONTEXTS)
def test_no_json_object_makes_it_fail(context: dict[str, Any]) -> None:
    read = read_context(encoded(context))
    assert all(type(granted) is bool for _, granted in read_consent(bytes(read.consent)).answers)
    for name, value in (("ip", read.ip), ("userAgent", read.user_agent)):
        assert value == (context.get(name) if isinstance(context.get(name), str) else None)


def test_email_is_found_in_traits_and_ignored_when_it_is_no_text() -> None:
    assert read_email(b'{"email": "a@b.de"}', "traits") == "a@b.de"
    assert read_email(b'{"email": 5}', "traits") is None
    assert read_email(b'{"mail": "a@b.de"}', "traits") is None
    assert read_email(b"", "traits") is None


def test_page_of_properties() -> None:
    assert read_page(b'{"url": "https://a.example/?x", "referrer": 5}').url == "https://a.example/?x"
    assert read_page(b'{"referrer": 5}').referrer is None


def test_context_traits_are_handed_on_as_they_were_sent() -> None:
    assert context_traits(b'{"traits": {"plan":  "pro"}, "ip": 5}') == b'{"plan":  "pro"}'
    assert context_traits(b'{"traits": [1]}') == b""
    assert context_traits(b'{"ip": "x"}') == b""


@pytest.mark.parametrize(
    ("header", "address", "context", "expected"),
    [
        ("Mozilla/5.0 X", "8.8.8.8", {}, ("Mozilla/5.0 X", "8.8.8.8")),
        ("analytics-python/2.4", "8.8.8.8", {}, ("", "")),
        ("analytics-python/2.4", "8.8.8.8", {"ip": "9.9.9.9"}, ("", "9.9.9.9")),
        ("Mozilla/5.0 X", "8.8.8.8", {"ip": "9.9.9.9", "userAgent": "App/1"}, ("App/1", "9.9.9.9")),
        ("", "", {}, ("", "")),
    ],
)
def test_the_device_is_the_person_s_own(header: str, address: str, context: dict[str, str], expected: tuple[str, str]) -> None:
    event = track(user_agent=header, client_ip=address)
    assert device_address(event, read_context(encoded(context))) == expected
