"""Documents of destinations, the JSON of an event, signatures, explanations."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from cdi.event.v1 import outcome_pb2
from cdi.event.v1.event_pb2 import ConsentResult, Enrichments, Event, Geo, UserAgent
from cdi.router.v1.destination_pb2 import Destination, RetryPolicy, Webhook
from cdi_kernel.faults import FailedPrecondition, InvalidArgument
from cdi_router.convert import destination_of
from cdi_router.destinations.base import resolve
from cdi_router.destinations.event_json import event_json
from cdi_router.destinations.webhook import signature
from cdi_router.domain.delivery import Delivery, idempotency_key
from cdi_router.domain.explanation import Fate, NotMade, explain
from cdi_router.domain.person import person_of
from cdi_testing import builders


def document(webhook: dict[str, Any] | None = None, **fields: Any) -> Destination:
    settings = {"url": "https://example.com/hook"} | (webhook or {})
    return Destination(**({"workspace_id": "acme", "name": "crm", "enabled": True, "webhook": Webhook(**settings)} | fields))


def test_defaults() -> None:
    made = destination_of(document())
    assert (made.webhook.max_batch_events, made.webhook.concurrency, made.webhook.timeout_seconds) == (100, 4, 10.0)
    policy = made.retry
    given = (policy.initial_seconds, policy.max_seconds, policy.give_up_after_seconds, policy.give_up_after_attempts)
    assert given == (10.0, 300.0, 10_800.0, 3)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (document(name=""), "name"),
        (document(name="a/b"), "name"),
        (document(workspace_id=""), "workspace_id"),
        (document(event_types=["click"]), "event_types[0]"),
        (document(purposes=[""]), "purposes[0]"),
        (document(retry=RetryPolicy(initial_seconds=-1)), "retry.initial_seconds"),
        (document(retry=RetryPolicy(max_seconds=float("nan"))), "retry.max_seconds"),
        (document({"url": "file:///etc/passwd"}), "webhook.url"),
        (document({"url": "http://"}), "webhook.url"),
        (document({"url": "http://host:99999/"}), "webhook.url"),
        (document({"max_batch_events": 1_001}), "webhook.max_batch_events"),
        (document({"timeout_seconds": float("inf")}), "webhook.timeout_seconds"),
        (document({"signing_secret": "in the open"}), "webhook.signing_secret"),
        (document({"signing_secret": "env:CDI_DATABASE_URL"}), "webhook.signing_secret"),
        (document({"headers": {"X": "env:cdi_database_url"}}), "webhook.headers[X]"),
        (document({"headers": {"Bad Name": "x"}}), "webhook.headers[Bad Name]"),
        (document({"headers": {"X": "a\r\nB: c"}}), "webhook.headers[X]"),
        (document({"headers": {"Content-Length": "0"}}), "webhook.headers[Content-Length]"),
        (Destination(workspace_id="acme", name="crm"), "kind"),
    ],
)
def test_every_rule(wrong: Destination, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        destination_of(wrong)
    assert [name for name, _ in refused.value.field_violations] == [field]


def test_references() -> None:
    assert resolve("plain", {}) == "plain"
    assert resolve("env:TOKEN", {"TOKEN": "t"}) == "t"
    with pytest.raises(FailedPrecondition):
        resolve("env:TOKEN", {})


def test_the_whole_event() -> None:
    event = builders.track(
        "Order Completed",
        user_id="u",
        anonymous_id="a",
        message_id="m",
        context={"ip": "::1"},
        consent=ConsentResult(granted_purposes=["ads"]),
        enrichments=Enrichments(geo=Geo(country="DE"), user_agent=UserAgent(browser="Firefox", os_version="10")),
    )
    event.properties = b'{"total": 1.50, "big": 12345678901234567890}'
    event.identity.profile_id = "p"
    event.identity.traits = b'{"lifetime_value": 9.50}'
    text = event_json(event)
    # The client's bytes, not our reading of them.
    assert b'"properties":{"total": 1.50, "big": 12345678901234567890}' in text
    assert b'"profileTraits":{"lifetime_value": 9.50}' in text
    assert json.loads(text) == {
        "messageId": "m",
        "type": "track",
        "event": "Order Completed",
        "userId": "u",
        "anonymousId": "a",
        "profileId": "p",
        "timestamp": "2026-01-15T12:00:00Z",
        "originalTimestamp": "2026-01-15T12:00:00Z",
        "sentAt": "2026-01-15T12:00:00Z",
        "receivedAt": "2026-01-15T12:00:00Z",
        "properties": {"total": 1.5, "big": 12345678901234567890},
        "context": {"ip": "::1"},
        "sourceId": "web",
        "workspaceId": "acme",
        "consent": {"grantedPurposes": ["ads"], "decisionIds": []},
        "enrichments": {"geo": {"country": "DE"}, "userAgent": {"browser": "Firefox", "osVersion": "10"}},
        "profileTraits": {"lifetime_value": 9.5},
    }


def test_what_is_absent_is_left_out() -> None:
    assert json.loads(event_json(Event(message_id="m"))) == {"messageId": "m", "type": ""}
    page = json.loads(event_json(builders.page("Home", category="Docs")))
    assert (page["name"], page["category"], "event" in page) == ("Home", "Docs", False)


def test_no_instant_makes_it_fail() -> None:
    event = builders.track()
    event.event_time.seconds = 2**62
    assert "timestamp" not in msgspec.json.decode(event_json(event))


def test_signature_is_hmac_sha256() -> None:
    # RFC 4231, test case 2.
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature(b"Jefe", b"what do ya want for nothing?") == f"sha256={digest}"


def test_the_idempotency_key_depends_on_the_events_only() -> None:
    one, two = (Delivery(event, person_of(event), (1, 0)) for event in (builders.track(), builders.track()))
    later = Delivery(one.event, one.person, (7, 3))
    assert idempotency_key([one, two]) == idempotency_key([later, two])
    assert idempotency_key([one, two]) != idempotency_key([two, one])


def test_persons_are_partition_keys() -> None:
    assert person_of(builders.track(anonymous_id="a", user_id="u")) == person_of(builders.page(anonymous_id="a"))
    assert person_of(builders.track(user_id="u")) != person_of(builders.track(user_id="v"))
    assert person_of(builders.track(user_id="u", workspace_id="x")) != person_of(builders.track(user_id="u"))


DUE = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fate", "sequence", "outcome", "words"),
    [
        (Fate(1, 9, 5, None, None, None), 7, outcome_pb2.OUTCOME_DELIVERED, "delivered"),
        (Fate(1, 9, 5, None, None, None), 10, outcome_pb2.OUTCOME_UNSPECIFIED, "not reached yet"),
        (Fate(1, 0, None, None, None, None), 7, outcome_pb2.OUTCOME_UNSPECIFIED, "not reached yet"),
        (Fate(1, 9, 5, None, None, None), 3, outcome_pb2.OUTCOME_UNSPECIFIED, "newer"),
        (Fate(1, 9, 5, ("destination_refused", 400, 1), None, None), 7, outcome_pb2.OUTCOME_DEAD_LETTERED, "status 400"),
        (
            Fate(1, 9, 5, None, NotMade("consent_denied", DUE, ("ads",), ("d1",)), None),
            7,
            outcome_pb2.OUTCOME_FILTERED,
            "no longer granted",
        ),
        (Fate(1, 9, 5, None, NotMade("suppressed", DUE), None), 7, outcome_pb2.OUTCOME_SUPPRESSED, "suppressed, or was erased"),
        (Fate(1, 9, 5, None, NotMade("retries_exhausted", DUE), None), 7, outcome_pb2.OUTCOME_DEAD_LETTERED, "given up; what was kept"),
        (Fate(1, 9, 5, None, None, (2, DUE, 503, True)), 7, outcome_pb2.OUTCOME_PARKED, "attempt 2 failed (status 503)"),
        (Fate(1, 9, 5, None, None, (2, DUE, 503, False)), 7, outcome_pb2.OUTCOME_PARKED, "behind"),
    ],
)
def test_explanations(fate: Fate, sequence: int, outcome: int, words: str) -> None:
    told = explain(destination_of(document()), builders.track(), sequence, fate)
    assert told.outcome == outcome
    assert words in told.description


def test_explanations_name_the_purpose() -> None:
    told = explain(destination_of(document(purposes=["ads"])), builders.track(), 7, Fate(1, 9, 5, None, None, None))
    assert (told.outcome, told.reason) == (outcome_pb2.OUTCOME_FILTERED, "consent_denied")
    assert "ads" in told.description
