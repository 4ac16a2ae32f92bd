"""Signals that are JSON, headers or cookies."""

import json
from typing import Any

import pytest

from cdi_consent.domain.signals.registry import read
from cdi_consent.domain.signals.signal import Reading, SignalKind

RECEIVED_US = 1_557_797_673_000_000  # 2019-05-14T01:34:33Z
PREFERENCES = "iglu:com.snowplowanalytics.snowplow/consent_preferences/jsonschema/1-0-0"


def readable(kind: SignalKind, document: Any) -> Reading:
    reading = read(kind, json.dumps(document))
    assert reading.unknown == ""
    return reading


def test_segments_categories_are_the_keys() -> None:
    reading = readable(
        SignalKind.SEGMENT, {"categoryPreferences": {"Advertising": True, "functional": False, "odd": "true", "": True, "x" * 129: True}}
    )
    assert reading.answers == (("Advertising", True), ("functional", False))
    assert reading.skipped == ("segment: 3 without a category or an answer",)
    assert reading.answer("advertising") is None


@pytest.mark.parametrize("document", [{}, {"categoryPreferences": None}, {"categoryPreferences": [1]}])
def test_segments_consent_without_categories_says_nothing(document: Any) -> None:
    assert read(SignalKind.SEGMENT, json.dumps(document)).unknown == "segment: without categoryPreferences"


def test_no_categories_are_read_but_answer_nothing() -> None:
    assert readable(SignalKind.SEGMENT, {"categoryPreferences": {}}).answers == ()


def test_more_answers_than_anybody_gives_are_not_read() -> None:
    document = {"categoryPreferences": {f"c{number}": True for number in range(501)}}
    assert read(SignalKind.SEGMENT, json.dumps(document)).unknown == "segment: more than 500 answers"


def test_rudderstacks_lists() -> None:
    consent = {"allowedConsentIds": ["1", "both"], "deniedConsentIds": ["2", "both", 3], "provider": "custom", "resolutionStrategy": "or"}
    reading = readable(SignalKind.RUDDERSTACK, consent)
    assert dict(reading.answers) == {"1": True, "2": False, "both": False}
    assert (reading.resolution, reading.version, len(reading.skipped)) == ("or", "custom", 1)


@pytest.mark.parametrize("strategy", [{}, {"resolutionStrategy": "any"}, {"resolutionStrategy": 1}])
def test_rudderstack_without_a_known_strategy_needs_all_ids(strategy: Any) -> None:
    reading = readable(SignalKind.RUDDERSTACK, {"allowedConsentIds": ["1"], **strategy})
    assert (reading.resolution, reading.answer("1")) == ("and", True)


def test_no_denied_ids_are_not_a_permission() -> None:
    reading = readable(SignalKind.RUDDERSTACK, {"allowedConsentIds": [], "deniedConsentIds": []})
    assert reading.answer("anything") is None
    assert read(SignalKind.RUDDERSTACK, "{}").unknown == "rudderstack: without lists of ids"


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("event", "listed", "other"),
    [
        ("allow_all", True, None),
        ("allow_selected", True, None),
        ("deny_all", False, False),
        ("withdrawn", False, False),
        ("expired", False, False),
    ],
)
def test_snowplows_preferences(event: str, listed: bool, other: bool | None, wrapped: bool) -> None:
    content = {"eventType": event, "basisForProcessing": "consent", "consentVersion": "7", "consentScopes": ["ads"]}
    reading = readable(SignalKind.SNOWPLOW_PREFERENCES, {"schema": PREFERENCES, "data": content} if wrapped else content)
    assert (reading.answer("ads"), reading.answer("analytics")) == (listed, other)
    assert (reading.basis, reading.version) == ("consent", "7")


@pytest.mark.parametrize("event", ["pending", "implicit_consent"])
def test_what_snowplows_user_has_not_decided_is_unknown_and_its_basis_is_kept(event: str) -> None:
    content = {"eventType": event, "basisForProcessing": "legitimate_interests", "consentScopes": ["ads"]}
    reading = read(SignalKind.SNOWPLOW_PREFERENCES, json.dumps(content))
    assert reading.unknown.startswith(f"snowplow_preferences: {event}")
    assert (reading.answer("ads"), reading.basis) == (None, "legitimate_interests")


def test_snowplows_gdpr_is_a_basis_and_no_answer() -> None:
    content = {"basisForProcessing": "contract", "documentId": "terms", "documentVersion": "2"}
    reading = read(SignalKind.SNOWPLOW_GDPR, json.dumps(content))
    assert (reading.unknown, reading.basis, reading.version) == ("snowplow_gdpr: a basis is no answer", "contract", "terms 2")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"eventType": "maybe"}, "without a known eventType"),
        ({"eventType": ["allow_all"]}, "without a known eventType"),
        (
            {"schema": "iglu:com.acme/consent_preferences/jsonschema/1-0-0", "data": {"eventType": "allow_all"}},
            "not of the schema consent_preferences",
        ),
        ({"schema": PREFERENCES, "data": []}, "not of the schema consent_preferences"),
    ],
)
def test_what_is_no_preference_of_snowplow(document: Any, reason: str) -> None:
    assert read(SignalKind.SNOWPLOW_PREFERENCES, json.dumps(document)).unknown == f"snowplow_preferences: {reason}"


def test_google_consent_mode() -> None:
    reading = readable(
        SignalKind.GOOGLE_CONSENT_MODE, {"ad_storage": "denied", "ad_user_data": "granted", "analytics_storage": 1, "wait_for_update": 5}
    )
    assert reading.answers == (("google.ad_storage", False), ("google.ad_user_data", True))
    assert reading.skipped == ("google_consent_mode: 1 neither granted nor denied",)


@pytest.mark.parametrize(
    ("text", "ad_storage", "analytics_storage"),
    [("G111", True, True), ("gcs=G101", False, True), ("G110", True, False), ("G1-0", None, False)],
)
def test_gcs(text: str, ad_storage: bool | None, analytics_storage: bool | None) -> None:
    reading = read(SignalKind.GOOGLE_CONSENT_MODE, text)
    assert (reading.unknown, reading.answer("google.ad_storage")) == ("", ad_storage)
    assert reading.answer("google.analytics_storage") is analytics_storage
    assert reading.answer("google.ad_user_data") is None


@pytest.mark.parametrize(
    ("text", "reason"), [("G121", "not of the form G1xy"), ("G1--", "no type of consent is set"), ("{}", "no type of consent is set")]
)
def test_what_google_did_not_set_is_unknown(text: str, reason: str) -> None:
    assert read(SignalKind.GOOGLE_CONSENT_MODE, text).unknown == f"google_consent_mode: {reason}"


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("CONFIRMED", True), ("ACTIVE", True), ("EXTEND", True), ("WITHDRAWN", False), ("OPT_OUT", False), ("HARD_OPT_OUT", False),
        ("NOTGIVEN", False), ("EXPIRED", False), ("PENDING", None), ("NO_CHOICE", None), ("CHANGE_PREFERENCES", None), ("confirmed", None),
    ],
)  # fmt: skip
def test_onetrusts_receipts(state: str, answer: bool | None) -> None:
    receipt = {
        "identifier": "u-1",
        "identifierType": "CustomerId",
        "additionalIdentifiers": {"Device": "d-1", "Bad": 7},
        "interactionDate": "2019-05-14T01:34:33Z",
        "purposes": [{"Id": "p-1", "TransactionType": state}, {"Id": "p-2"}, "nonsense"],
    }
    reading = readable(SignalKind.ONETRUST, receipt)
    assert (reading.answer("p-1"), reading.answer("p-2"), reading.decide_us) == (answer, None, RECEIVED_US)
    assert reading.subjects == (("CustomerId", "u-1"), ("Device", "d-1"))


def test_onetrusts_web_hook() -> None:
    profile = {"purposeId": "p-1", "profileFields": {"TransactionStatus": "WITHDRAWN"}}
    payload = {"dataSubjectGuid": "g-1", "dataSubjectEmail": "ada@shop.example", "profiles": [profile]}
    reading = readable(SignalKind.ONETRUST, {"eventType": "3010", "eventTime": "2019-05-14T01:34:33.000+0000", "payload": payload})
    assert (reading.answers, reading.decide_us) == ((("p-1", False),), RECEIVED_US)
    assert reading.subjects == (("dataSubjectEmail", "ada@shop.example"), ("dataSubjectGuid", "g-1"))
    assert "ada" not in repr(reading)


@pytest.mark.parametrize(
    "cookie",
    [
        "groups=C0001:1,C0002:0,C0003:2&consentId=c-1&version=202401.1.0&interactionCount=1",
        "isGpcEnabled=0&groups=C0001%3A1%2CC0002%3A0%2CC0003%3A2&consentId=c-1&version=202401.1.0",
        "groups%3DC0001%3A1%2CC0002%3A0%2CC0003%3A2%26consentId%3Dc-1%26version%3D202401.1.0",
    ],
)
def test_onetrusts_cookie(cookie: str) -> None:
    reading = read(SignalKind.ONETRUST, cookie)
    assert (reading.unknown, reading.answers) == ("", (("C0001", True), ("C0002", False)))
    assert (reading.subjects, reading.version, reading.decide_us) == ((("consentId", "c-1"),), "202401.1.0", None)
    assert reading.skipped == ("onetrust: 1 without a category or an answer",)


def test_groups_that_are_on_before_the_person_answered_are_no_answer() -> None:
    reading = read(SignalKind.ONETRUST, "groups=C0001:1,C0002:0&interactionCount=0")
    assert (reading.answers, len(reading.skipped)) == ((("C0002", False),), 1)


def test_onetrusts_global_privacy_control_opts_out() -> None:
    reading = read(SignalKind.ONETRUST, "groups=C0001:1&isGpcEnabled=1")
    assert (reading.answer("C0001"), reading.answer("us.sale")) == (True, False)


def test_cookiebots_consent() -> None:
    consent = {
        "stamp": "s-1",
        "necessary": True,
        "preferences": False,
        "statistics": True,
        "marketing": False,
        "method": "explicit",
        "ver": 1,
    }
    for document in (consent, {"consent": consent, "timestamp": "2019-05-14T01:34:33Z"}):
        reading = readable(SignalKind.COOKIEBOT, document)
        assert dict(reading.answers) == {"necessary": True, "preferences": False, "statistics": True, "marketing": False}
        assert (reading.subjects, reading.basis, reading.version) == ((("stamp", "s-1"),), "explicit", "1")
    assert reading.decide_us == RECEIVED_US


def test_cookiebots_cookie() -> None:
    cookie = "{stamp:'s-1+/=',necessary:true,preferences:false,statistics:true,marketing:false,method:'explicit',ver:1,utc:1557797673000}"
    for text in (cookie, cookie.replace("'", "%27").replace("+", "%2B").replace(":", "%3A")):
        reading = read(SignalKind.COOKIEBOT, text)
        assert (reading.unknown, reading.decide_us, reading.subjects) == ("", RECEIVED_US, (("stamp", "s-1+/="),))
        assert dict(reading.answers) == {"necessary": True, "preferences": False, "statistics": True, "marketing": False}


@pytest.mark.parametrize("sign", [{"method": "implied"}, {"stamp": "-1"}, {"hasResponse": False}])
def test_what_cookiebots_visitor_did_not_answer_grants_nothing_and_denies_all_the_same(sign: Any) -> None:
    reading = readable(SignalKind.COOKIEBOT, {"necessary": True, "marketing": True, "statistics": False, **sign})
    assert (reading.answers, reading.subjects, len(reading.skipped)) == ((("statistics", False),), (), 1)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (SignalKind.ONETRUST, "{}", "onetrust: without purposes"),
        (SignalKind.ONETRUST, '{"payload": []}', "onetrust: payload is not an object"),
        (SignalKind.ONETRUST, "a=b", "onetrust: without groups"),
        (SignalKind.ONETRUST, "&".join(["a=1"] * 200), "onetrust: more than 100 fields"),
        (SignalKind.COOKIEBOT, "{}", "cookiebot: without categories"),
        (SignalKind.COOKIEBOT, "-1", "cookiebot: neither JSON nor the cookie"),
        (SignalKind.COOKIEBOT, "{stamp:'a,necessary:true}", "cookiebot: neither JSON nor the cookie"),
        (SignalKind.SEGMENT, "", "segment: no JSON at 0"),
        (SignalKind.SEGMENT, "[]", "segment: not a JSON object"),
    ],
)
def test_what_is_no_signal_of_its_kind(kind: SignalKind, text: str, reason: str) -> None:
    reading = read(kind, text)
    assert (reading.unknown, reading.answers) == (reason, ())
