"""What a purpose, a decision and a page token must be, and what becomes of odd requests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cdi.consent.v1 import consent_service_pb2 as service_pb2
from cdi.consent.v1 import purpose_pb2
from cdi_consent import convert, convert_pages
from cdi_consent.domain.chain import START, Line, Seal
from cdi_consent.domain.decisions import MAX_PROOF, MAX_SIGNAL, USER_ID, Decision, can_be_subject, decision_id, instant
from cdi_consent.domain.documents import checked
from cdi_consent.domain.policy import ConsentPolicy, DefaultPolicy, regional
from cdi_consent.domain.purposes import Outcome, Purpose, WarehouseRule, snapshot
from cdi_consent.domain.recording import MAX_AHEAD_US, Draft, accepted
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault, InvalidArgument

ADA = ("acme", USER_ID, "ada")
PURPOSES = snapshot([Purpose("acme", "ads")])
NOW_US = 1_768_478_400_000_000


def draft(subject: tuple[str, str, str] = ADA, purpose: str = "ads", decide_us: int | None = NOW_US, proof: str = "form") -> Draft:
    return Draft(subject, purpose, True, decide_us, proof)


@pytest.mark.parametrize(
    ("purpose", "field"),
    [
        (Purpose("", "ads"), "purpose.workspace_id"),
        (Purpose("acme", ""), "purpose.name"),
        (Purpose("acme", "x" * 65), "purpose.name"),
        (Purpose("acme", "a\nb"), "purpose.name"),
        (Purpose("acme", "ads", description="\0"), "purpose.description"),
        (Purpose("acme", "ads", categories=("",)), "purpose.categories[0]"),
        (Purpose("acme", "ads", categories=("c",) * 101), "purpose.categories"),
        (Purpose("acme", "ads", destinations=("",)), "purpose.destinations[0]"),
        (Purpose("acme", "ads", columns=("traits.email", "user_id")), "purpose.columns[1]"),
        (Purpose("acme", "ads", columns=("traits",)), "purpose.columns[0]"),
        (Purpose("acme", "ads", warehouses=(WarehouseRule("Main", rows=True),)), "purpose.warehouses[0]"),
        (Purpose("acme", "ads", warehouses=(WarehouseRule("main", rows=True),) * 2), "purpose.warehouses[0]"),
        (Purpose("acme", "ads", warehouses=(WarehouseRule("main"),)), "purpose.warehouses[0]"),
        (Purpose("acme", "ads", warehouses=(WarehouseRule("main", columns=("email",)),)), "purpose.warehouses[0].columns[0]"),
        (Purpose("acme", "ads", regional_defaults=(("europe", DefaultPolicy.ALLOW),)), "purpose.regional_defaults[0]"),
        (Purpose("acme", "ads", regional_defaults=(("US", DefaultPolicy.ALLOW),) * 2), "purpose.regional_defaults[0]"),
        (Purpose("acme", "ads", regional_defaults=(("US", DefaultPolicy.UNSPECIFIED),)), "purpose.regional_defaults"),
    ],
)
def test_a_purpose_that_breaks_a_rule_names_its_field(purpose: Purpose, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked(purpose)
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("region", "expected"),
    [("", 0), ("DE", 1), ("GB", 1), ("CH", 0), ("US", 2), ("US-CA", 3), ("US-NY", 2), ("DE-BY", 1), ("de", 0)],
)
def test_the_closest_region_counts(region: str, expected: int) -> None:
    defaults = (("GDPR", DefaultPolicy.REQUIRE), ("US", DefaultPolicy.ALLOW), ("US-CA", DefaultPolicy.SEGMENT))
    assert regional(defaults, region) == expected


def test_a_purpose_speaks_before_the_policy_and_a_region_before_the_default() -> None:
    allow, require = DefaultPolicy.ALLOW, DefaultPolicy.REQUIRE
    policy = ConsentPolicy("acme", allow, (("GDPR", require),))
    silent, strict = Purpose("acme", "ads"), Purpose("acme", "ads", default_policy=require, regional_defaults=(("US", allow),))
    assert [silent.policy(policy, region) for region in ("", "US", "DE")] == [allow, allow, require]
    assert [strict.policy(policy, region) for region in ("", "US", "DE")] == [require, allow, require]


def test_categories_are_sorted_and_each_once() -> None:
    assert checked(Purpose("acme", "ads", categories=("b", "ads", "a", "b"))).categories == ("a", "b")


@pytest.mark.parametrize(
    ("refused", "code", "reason"),
    [
        (draft(purpose="nonsense"), "NOT_FOUND", "not_found"),
        (draft(("other", USER_ID, "ada")), "NOT_FOUND", "not_found"),
        (draft(("acme", "email", "ada")), "INVALID_ARGUMENT", "invalid_argument"),
        (draft(("acme", USER_ID, "")), "INVALID_ARGUMENT", "invalid_argument"),
        (draft(proof="\0"), "INVALID_ARGUMENT", "invalid_argument"),
        (draft(decide_us=NOW_US + MAX_AHEAD_US + 1), "INVALID_ARGUMENT", "invalid_time"),
    ],
)
def test_a_refused_decision_says_why(refused: Draft, code: str, reason: str) -> None:
    fault = accepted(refused, PURPOSES, NOW_US)
    assert isinstance(fault, Fault)
    assert (fault.code, fault.reason_name) == (code, reason)


def test_a_decision_from_a_clock_ahead_counts_as_taken_now_under_the_same_id() -> None:
    early, late = (accepted(draft(decide_us=NOW_US + MAX_AHEAD_US), PURPOSES, NOW_US + lag) for lag in (0, 5))
    assert isinstance(early, Decision)
    assert isinstance(late, Decision)
    assert (early.decide_us, late.decide_us) == (NOW_US, NOW_US + 5)
    assert early.decision_id == late.decision_id


@given(st.integers(0, MAX_INSTANT_US), st.booleans())
def test_a_decision_id_is_a_uuid7_of_the_decide_time(decide_us: int, granted: bool) -> None:
    identity = UUID(decision_id("event", ADA, "ads", granted, decide_us, "m1"))
    assert (identity.version, identity.int >> 80) == (7, decide_us // 1_000)


def test_everything_about_a_decision_is_in_its_id() -> None:
    ids = {
        decision_id("event", ADA, "ads", True, 1, "m1"),
        decision_id("record", ADA, "ads", True, 1, "m1"),
        decision_id("event", ("acme", USER_ID, "ad"), "aads", True, 1, "m1"),
        decision_id("event", ADA, "email", True, 1, "m1"),
        decision_id("event", ADA, "ads", False, 1, "m1"),
        decision_id("event", ADA, "ads", True, 2, "m1"),
        decision_id("event", ADA, "ads", True, 1, "m2"),
        decision_id("event", ADA, "ads", True, MIN_INSTANT_US, "m1"),
    }
    assert len(ids) == 8


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_an_instant_stays_within_timestamps(seconds: int, nanos: int) -> None:
    assert MIN_INSTANT_US <= instant(seconds, nanos) <= MAX_INSTANT_US


@pytest.mark.parametrize(("subject_id", "possible"), [("", False), ("a\0", False), ("x" * 513, False), ("x" * 512, True), ("\x1f", True)])
def test_what_can_be_a_subject(subject_id: str, possible: bool) -> None:
    assert can_be_subject(subject_id) == possible


def inputs(*given_: service_pb2.ConsentInput) -> Sequence[convert.InputView]:
    """Events as they are read from a request."""
    return convert.inputs_of(service_pb2.EvaluateConsentRequest(inputs=given_).SerializeToString())


def answered(*outcomes_: Outcome) -> service_pb2.EvaluateConsentResponse:
    """What a caller reads of the answer."""
    return service_pb2.EvaluateConsentResponse.FromString(b"".join(map(convert.written, outcomes_)))


def test_a_batch_becomes_items() -> None:
    when = Timestamp()
    when.FromDatetime(datetime(2026, 1, 15, tzinfo=UTC))
    answer = service_pb2.CategoryPreference(category="ads", granted=True)
    items, sampled = convert.items_of(
        inputs(
            service_pb2.ConsentInput(workspace_id="acme", message_id="m1", user_id="ada", anonymous_id="browser", traceparent="00-…"),
            service_pb2.ConsentInput(workspace_id="acme", message_id="m2", user_id="a\0", preferences=[answer], event_time=when),
        )
    )
    assert [item.subjects for item in items] == [(ADA, ("acme", "anonymous_id", "browser")), ()]
    assert (items[1].proof, items[1].preferences, items[1].event_us) == ("m2", (("ads", True),), 1_768_435_200_000_000)
    assert sampled == [convert.Sampled("m1", "00-…")]


def test_signals_and_times_are_read_as_they_were_sent() -> None:
    when = Timestamp(seconds=7, nanos=5_000)
    signal = service_pb2.ConsentSignal(kind="gpc", raw=b"1")
    longer = service_pb2.ConsentSignal(kind="tcf", raw=b"x" * (MAX_SIGNAL + 1))
    given_ = inputs(
        service_pb2.ConsentInput(workspace_id="acme", has_preferences=True, signals=[signal, longer], received_time=when, region="DE"),
        service_pb2.ConsentInput(workspace_id="acme"),
    )
    items, _ = convert.items_of(given_)
    assert (items[0].signals, items[0].answered, items[0].event_us, items[0].region) == ((("gpc", b"1"),), True, 0, "DE")
    received_us = convert.receive_times(given_, NOW_US)
    assert (received_us(0), received_us(1)) == (7_000_005, NOW_US)


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        convert.inputs_of(b"\xff")


def test_a_message_id_becomes_a_proof_that_can_be_kept() -> None:
    answer = service_pb2.CategoryPreference(category="ads", granted=True)
    given_ = service_pb2.ConsentInput(workspace_id="acme", message_id="m\0" + "x" * MAX_PROOF, user_id="ada", preferences=[answer])
    ((item,), _) = convert.items_of(inputs(given_))
    assert item.proof == "m\N{REPLACEMENT CHARACTER}" + "x" * (MAX_PROOF - 2)


def test_outcomes_that_are_equal_become_equal_results_in_order() -> None:
    denial = decision_id("event", ADA, "ads", False, 1, "m1")
    denied, allowed = Outcome((), (denial,), False), Outcome(("ads",), (), True)
    results = answered(denied, allowed, denied).results
    assert [(list(r.granted_purposes), list(r.decision_ids), r.linkable) for r in results] == [
        ([], [denial], False),
        (["ads"], [], True),
        ([], [denial], False),
    ]


decision_ids = st.uuids().map(str)
# A purpose may be called anything, also like an id.
names = st.one_of(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64), decision_ids, st.just(str(UUID(int=0))))
columns = st.lists(names, max_size=2).map(tuple)
regions = st.sampled_from(["", "DE"])
outcomes = st.builds(Outcome, st.lists(names).map(tuple), st.lists(decision_ids, max_size=20).map(tuple), st.booleans(), columns, regions)


@given(st.lists(outcomes))
def test_results_are_what_protobuf_makes_of_the_outcomes(drawn: list[Outcome]) -> None:
    expected = service_pb2.EvaluateConsentResponse()
    for outcome in drawn:
        expected.results.add(
            granted_purposes=outcome.granted_purposes,
            decision_ids=outcome.decision_ids,
            linkable=outcome.linkable,
            dropped_columns=outcome.dropped_columns,
            region=outcome.region,
        )
    assert answered(*drawn) == expected


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=64))
def test_a_name_survives_its_token(name: str) -> None:
    assert convert_pages.name_of_token(convert_pages.name_token(name)) == name


def test_a_position_survives_its_token() -> None:
    identity = decision_id("record", ADA, "ads", True, NOW_US, "form")
    line = Line(Decision(identity, ADA, "ads", True, NOW_US, NOW_US, "form"), START, Seal(b"", b""))
    assert convert_pages.position_of_token(convert_pages.position_token(line)) == (NOW_US, identity)
    assert convert_pages.position_of_token("") is None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument):
        convert_pages.position_of_token(token)


@pytest.mark.parametrize(("asked", "given_"), [(0, 100), (1, 1), (1_000, 1_000), (5_000, 1_000)])
def test_page_sizes(asked: int, given_: int) -> None:
    assert convert_pages.page_size(asked) == given_


def test_a_purpose_survives_its_message() -> None:
    message = purpose_pb2.Purpose(
        workspace_id="acme", name="ads", default_policy=purpose_pb2.DEFAULT_POLICY_ALLOW, required_for_linking=True
    )
    assert convert.purpose_message(convert.purpose_of(message)) == message
