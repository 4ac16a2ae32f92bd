"""Web hooks: signatures as Stripe, Shopify, GitHub, Slack and Standard Webhooks make them, and events out of their JSON."""

import base64
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.collector.v1 import source_pb2
from cdi_collector.convert import sources
from cdi_collector.domain import json_text, webhook_rules, webhooks
from cdi_collector.domain.client_event import ABSENT, ClientEvent
from cdi_collector.domain.limits import MAX_NESTING
from cdi_collector.domain.webhooks import MappingRule, SignatureRule, WebhookRule, at, map_event, verify
from cdi_consent.domain.signals import registry
from cdi_consent.domain.signals.signal import SignalKind
from cdi_enrichment.domain.consent import read_consent
from cdi_kernel.faults import Fault, InvalidArgument, Unauthenticated

NOW = 1_767_323_046
SECRET = b"whsec_test"
BODY = b'{"id": "evt_1", "type": "charge.succeeded"}'


def signed(message: bytes, algorithm: str = "sha256", secret: bytes = SECRET) -> bytes:
    return hmac.new(secret, message, algorithm).digest()


STRIPE = SignatureRule("Stripe-Signature", "t={timestamp},v1={signature}", signed="{timestamp}.{body}")
SHOPIFY = SignatureRule("X-Shopify-Hmac-Sha256", encoding="base64")
GITHUB = SignatureRule("X-Hub-Signature-256", "sha256={signature}")
GITHUB_SHA1 = SignatureRule("X-Hub-Signature", "sha1={signature}", algorithm="sha1")
SLACK = SignatureRule("X-Slack-Signature", "v0={signature}", signed="v0:{timestamp}:{body}", timestamp="header:X-Slack-Request-Timestamp")
STANDARD = SignatureRule(
    "webhook-signature",
    "v1,{signature}",
    separator=" ",
    signed="{header:webhook-id}.{timestamp}.{body}",
    timestamp="header:webhook-timestamp",
    encoding="base64",
)


def headers_of(rule: SignatureRule, body: bytes = BODY, at_time: int = NOW, secret: bytes = SECRET) -> dict[bytes, bytes]:
    """What the service sends, written as its manual says and not by the rule."""
    stamp = str(at_time).encode()
    if rule is STRIPE:
        return {b"stripe-signature": b"t=%s,v1=%s,v0=abc" % (stamp, signed(stamp + b"." + body, secret=secret).hex().encode())}
    if rule is SHOPIFY:
        return {b"x-shopify-hmac-sha256": base64.b64encode(signed(body, secret=secret))}
    if rule is GITHUB:
        return {b"x-hub-signature-256": b"sha256=" + signed(body, secret=secret).hex().encode()}
    if rule is GITHUB_SHA1:
        return {b"x-hub-signature": b"sha1=" + signed(body, "sha1", secret).hex().encode()}
    if rule is SLACK:
        signature = signed(b"v0:" + stamp + b":" + body, secret=secret).hex().encode()
        return {b"x-slack-request-timestamp": stamp, b"x-slack-signature": b"v0=" + signature}
    signature = base64.b64encode(signed(b"msg_1." + stamp + b"." + body, secret=secret))
    return {b"webhook-id": b"msg_1", b"webhook-timestamp": stamp, b"webhook-signature": b"v1,b2xk v1," + signature}


RULES = {"Stripe": STRIPE, "Shopify": SHOPIFY, "GitHub": GITHUB, "GitHub SHA-1": GITHUB_SHA1, "Slack": SLACK, "Standard": STANDARD}
TIMED = ["Stripe", "Slack", "Standard"]


def is_refused(rule: SignatureRule, headers: dict[bytes, bytes], body: bytes = BODY, now: int = NOW, secrets: Any = (SECRET,)) -> bool:
    try:
        verify(rule, secrets, headers, body, now * 1_000_000)
    except Unauthenticated as fault:
        return fault.reason_name == "invalid_signature"
    return False


@pytest.mark.parametrize("service", RULES)
def test_a_signature_holds_for_its_secret_and_its_body_only(service: str) -> None:
    rule = RULES[service]
    headers = headers_of(rule)
    assert not is_refused(rule, headers)
    assert not is_refused(rule, headers, secrets=(b"new", SECRET))
    assert is_refused(rule, headers, body=BODY + b" ")
    assert is_refused(rule, headers, secrets=(b"other",))
    assert is_refused(rule, headers, secrets=())
    assert is_refused(rule, headers_of(rule, secret=b"x"), secrets=(b"",))
    for name in headers:
        assert is_refused(rule, {**headers, name: b""})
        assert is_refused(rule, {other: value for other, value in headers.items() if other != name})


@pytest.mark.parametrize("service", TIMED)
def test_a_signature_is_good_for_some_minutes(service: str) -> None:
    rule = RULES[service]
    assert not is_refused(rule, headers_of(rule), now=NOW + 300)
    assert not is_refused(rule, headers_of(rule), now=NOW - 300)
    assert is_refused(rule, headers_of(rule), now=NOW + 301)
    assert is_refused(rule, headers_of(rule), now=NOW - 301)


def test_the_time_that_counts_is_the_signed_one() -> None:
    old = headers_of(STRIPE, at_time=NOW - 3_600)[b"stripe-signature"]
    assert is_refused(STRIPE, {b"stripe-signature": b"t=%d,%s" % (NOW, old.partition(b",")[2])})
    assert is_refused(STRIPE, {b"stripe-signature": b"t=%d," % NOW + old})
    assert is_refused(STRIPE, {b"stripe-signature": old.replace(b"t=", b"t=0x")})


def test_a_published_vector() -> None:
    # From GitHub's manual, "Validating webhook deliveries".
    headers = {b"x-hub-signature-256": b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    verify(GITHUB, [b"It's a Secret to Everybody"], headers, b"Hello, World!", 0)


@given(st.binary(max_size=80), st.sampled_from(sorted(RULES)))
def test_no_header_opens_the_door_or_breaks_it(value: bytes, service: str) -> None:
    rule = RULES[service]
    for name in headers_of(rule):
        assert is_refused(rule, {**headers_of(rule, secret=b"other"), name: value})


DOCUMENT = {"a": {"b/c": [10, {"d~e": "x"}], "": 0}, "": 1}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", DOCUMENT),
        ("/a/b~1c/0", 10),
        ("/a/b~1c/1/d~0e", "x"),
        ("/a/", 0),
        ("/", 1),
        ("/b", ...),
        ("/a/b~1c/2", ...),
        ("/a/b~1c/-", ...),
        ("/a/b~1c/-1", ...),
        ("/a/b~1c/99999999999999999999", ...),
        ("/a/b~1c/0/x", ...),
    ],
)
def test_json_pointers(pointer: str, found: Any) -> None:
    raw = at(json_raw(DOCUMENT), pointer)
    assert (json.loads(bytes(raw)) if raw is not ABSENT else ...) == found


def json_raw(value: Any) -> Any:
    return webhooks._root(json.dumps(value).encode())


def mapped(rule: MappingRule, body: Any, headers: dict[bytes, bytes] | None = None) -> ClientEvent:
    return map_event(rule, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), "stripe")


def test_an_event_of_stripe() -> None:
    rule = MappingRule(event="/type", user_id="/data/object/customer", message_id="/id", timestamp="/created", properties="/data/object")
    body = {"id": "evt_1", "type": "charge.succeeded", "created": NOW, "data": {"object": {"customer": "cus_1", "amount": 5}}}
    event = mapped(rule, body)
    assert (event.type, event.event, event.user_id, event.message_id) == ("track", "charge.succeeded", "cus_1", "evt_1")
    assert (event.anonymous_id, event.timestamp) == (None, NOW)
    assert json.loads(bytes(event.properties)) == {"customer": "cus_1", "amount": 5}


def test_an_event_of_github() -> None:
    rule = MappingRule(event="header:X-GitHub-Event", message_id="header:X-GitHub-Delivery", user_id="/sender/id", traits="/sender")
    event = mapped(rule, {"sender": {"id": 7}}, {b"x-github-event": b"push", b"x-github-delivery": b"d-1"})
    assert (event.event, event.message_id, event.user_id) == ("push", "d-1", 7)
    assert json.loads(bytes(event.traits)) == {"id": 7}
    assert json.loads(bytes(event.properties)) == {"sender": {"id": 7}}


def test_an_identify() -> None:
    event = mapped(MappingRule(type="identify", user_id="/email", traits="/", properties="/none"), {"email": "a@b.co", "": {"a": 1}})
    assert (event.type, event.event, event.user_id) == ("identify", None, "a@b.co")
    assert (bytes(event.properties), json.loads(bytes(event.traits))) == (b"", {"a": 1})
    page = mapped(MappingRule(type="page", event="/title"), {"title": "Home"})
    assert (page.type, page.name, page.event) == ("page", "Home", None)


def test_a_consent_stands_where_consent_reads_it() -> None:
    body = {"payload": {"identifier": "u1", "purposes": [{"Id": "ads", "TransactionType": "WITHDRAWN"}]}}
    event = mapped(MappingRule(user_id="/payload/identifier", consent="onetrust"), body)
    assert event.user_id == "u1"
    assert json.loads(bytes(event.context)) == {"consent": {"onetrust": body}}
    ((kind, signal),) = read_consent(json.dumps({"onetrust": body}).encode()).signals
    assert registry.read(SignalKind(kind), signal).answer("ads") is False
    deep = b'{"payload":' + b"[" * (MAX_NESTING - 2) + b"]" * (MAX_NESTING - 2) + b"}"
    with pytest.raises(Fault) as raised:
        mapped(MappingRule(consent="onetrust"), deep)
    assert raised.value.reason_name == "nesting_too_deep"


@pytest.mark.parametrize("body", [5, [1, 2], "x", None, {"a": 1}])
def test_without_a_mapping_any_json_is_an_event_of_nobody(body: Any) -> None:
    event = mapped(MappingRule(), body)
    assert (event.type, event.event, event.user_id, event.anonymous_id) == ("track", "webhook", None, "stripe")
    assert json.loads(bytes(event.properties)) == (body if isinstance(body, dict) else {"data": body})


@pytest.mark.parametrize(
    ("rule", "body", "reason"),
    [
        (MappingRule(), b"", "malformed_payload"),
        (MappingRule(), b"a=b", "malformed_payload"),
        (MappingRule(), b"{} {}", "malformed_payload"),
        (MappingRule(), b'"\xff"', "invalid_encoding"),
        (MappingRule(), b"[1e999]", "invalid_field"),
        (MappingRule(), b"[" * 70 + b"]" * 70, "nesting_too_deep"),
        (MappingRule(event="/type"), b'{"type":5}', "invalid_field"),
        (MappingRule(user_id="/u"), b'{"u":{}}', "invalid_field"),
        (MappingRule(traits="/u"), b'{"u":5}', "invalid_field"),
    ],
)
def test_what_is_no_event(rule: MappingRule, body: bytes, reason: str) -> None:
    with pytest.raises(Fault) as raised:
        mapped(rule, body)
    assert raised.value.reason_name == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
POINTERS = st.lists(st.sampled_from(["a", "b", "0", "1", ""]), max_size=3).map(lambda tokens: "".join(f"/{token}" for token in tokens))


@given(JSON, st.tuples(*[POINTERS] * 8))
def test_any_json_comes_to_an_event_or_a_fault(body: Any, pointers: Any) -> None:
    names = ("event", "user_id", "anonymous_id", "group_id", "message_id", "timestamp", "properties", "traits")
    try:
        event = mapped(MappingRule(**dict(zip(names, pointers, strict=True))), body)
    except InvalidArgument:
        return
    assert event.user_id not in (None, "") or event.anonymous_id not in (None, "")
    for raw in (event.properties, event.traits):
        assert not bytes(raw) or json_text.check(bytes(raw)) is None


def test_the_rules_of_known_services_are_valid() -> None:
    for signature in RULES.values():
        assert webhook_rules.violations(WebhookRule(replace(signature, secrets=("env:SECRET",)))) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"header": "a b"}, "header"),
        ({"template": "{timestamp}"}, "template"),
        ({"template": "{signature},{x}"}, "template"),
        ({"template": "{timestamp}{signature}", "signed": "{timestamp}{body}"}, "template"),
        ({"signed": "x"}, "signed"),
        ({"signed": "{body}{header:a b}"}, "signed"),
        ({"timestamp": "X-Time"}, "timestamp"),
        ({"signed": "{timestamp}{body}"}, "timestamp"),
        ({"timestamp": "header:X-Time"}, "signed"),
        ({"secrets": ()}, "secrets"),
        ({"secrets": ("plain",)}, "secrets"),
        ({"tolerance_seconds": 10**6}, "tolerance_seconds"),
        ({"signed": "{body}" + "x" * 300}, ""),
    ],
)
def test_what_a_signature_may_not_be(changes: dict[str, Any], field: str) -> None:
    rule = replace(SignatureRule("X-Signature", secrets=("env:SECRET",)), **changes)
    assert f"source.webhook.signature{'.' if field else ''}{field}" in dict(webhook_rules.violations(WebhookRule(rule)))


@pytest.mark.parametrize(
    "changes", [{"type": "alias"}, {"properties": "a"}, {"traits": "header:a"}, {"event": "x" * 300}, {"consent": "other"}]
)
def test_what_a_mapping_may_not_be(changes: dict[str, Any]) -> None:
    assert len(webhook_rules.violations(WebhookRule(None, MappingRule(**changes)))) == 1


def test_a_rule_is_the_same_as_a_message() -> None:
    for signature in (None, *(replace(rule, secrets=("env:A", "env:B")) for rule in RULES.values())):
        rule = WebhookRule(signature, MappingRule(event="/type", properties="/data", consent="cookiebot"))
        assert sources.webhook_of(sources.webhook_message(rule)) == rule
    assert sources.webhook_of(source_pb2.Webhook()) == WebhookRule()
    given = source_pb2.Webhook(signature=source_pb2.WebhookSignature(header="X", secrets=["env:A"]))
    assert sources.webhook_of(given) == WebhookRule(SignatureRule("X", secrets=("env:A",)))
