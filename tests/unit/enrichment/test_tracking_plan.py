"""Tracking plans: compiling, checking, and what violations tell."""

import json
from typing import Any

import pytest

from cdi.enrichment.v1.tracking_plan_pb2 import VIOLATION_POLICY_BLOCK, VIOLATION_POLICY_FORWARD, EventRule, TrackingPlan
from cdi.event.v1.event_pb2 import Event, ValidationResult
from cdi.event.v1.rejected_event_pb2 import FAILURE_TYPE_SCHEMA_VIOLATION
from cdi_enrichment.domain.rejection import Rejection
from cdi_enrichment.domain.tracking_plan import PlanSnapshot, compile_plan
from cdi_kernel.faults import InvalidArgument, Rejected
from cdi_testing.builders import SOURCE, WORKSPACE, identify, page, track

ORDER = {
    "type": "object",
    "properties": {
        "properties": {
            "type": "object",
            "required": ["total"],
            "additionalProperties": False,
            "properties": {"total": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD"]}},
        }
    },
}
SECRET = "do-not-tell"


def plan(*rules: EventRule, **fields: Any) -> TrackingPlan:
    return TrackingPlan(workspace_id=WORKSPACE, name="shop", source_ids=[SOURCE], rules=rules, version=3, **fields)


def order_rule(schema: Any = None) -> EventRule:
    return EventRule(type="track", event="Order Completed", json_schema=json.dumps(ORDER if schema is None else schema))


def check(plan: TrackingPlan, event: Event) -> ValidationResult | Rejection | None:
    return PlanSnapshot(1, {(WORKSPACE, SOURCE): compile_plan(plan)}).check(event)


def violations(properties: dict[str, Any]) -> list[tuple[str, str]]:
    verdict = check(plan(order_rule(), violations=VIOLATION_POLICY_FORWARD), track("Order Completed", properties=properties))
    assert isinstance(verdict, ValidationResult)
    assert SECRET not in str(verdict)
    return sorted((violation.type, violation.path) for violation in verdict.violations)


def test_an_event_that_keeps_its_schema_passes_with_plan_and_version() -> None:
    verdict = check(plan(order_rule()), track("Order Completed", properties={"total": 5}))
    assert verdict == ValidationResult(plan="shop", version=3)


def test_an_event_of_another_source_is_not_checked() -> None:
    assert check(plan(order_rule()), track("Order Completed", source_id="other")) is None


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, [("Required-Missing", "/properties/total")]),
        ({"total": SECRET}, [("Datatype-Mismatch", "/properties/total")]),
        ({"total": 1, "a/b~c": SECRET}, [("Additional-Properties", "/properties/a~1b~0c")]),
        ({"total": -1}, [("Advance-Rules-Violation", "/properties/total")]),
        ({"total": 1, "currency": SECRET}, [("Advance-Rules-Violation", "/properties/currency")]),
        ({"currency": "EUR", "x": 1}, [("Additional-Properties", "/properties/x"), ("Required-Missing", "/properties/total")]),
    ],
)
def test_violations_have_kind_and_place_and_no_value(properties: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert violations(properties) == expected


@pytest.mark.parametrize("policy", [0, VIOLATION_POLICY_BLOCK])
def test_a_violation_is_blocked_unless_the_plan_forwards_it(policy: int) -> None:
    verdict = check(plan(order_rule(), violations=policy), track("Order Completed", properties={"total": SECRET}))
    assert isinstance(verdict, Rejection)
    assert (verdict.failure_type, verdict.reason_name) == (FAILURE_TYPE_SCHEMA_VIOLATION, "schema_violation")
    assert verdict.violation_paths == ["/properties/total"]
    assert SECRET not in verdict.description


def test_an_unplanned_event_is_blocked_or_forwarded_as_the_plan_says() -> None:
    blocked = check(plan(order_rule()), track("Surprise"))
    assert isinstance(blocked, Rejection)
    assert blocked.reason_name == "unplanned_event"
    forwarded = check(plan(order_rule(), unplanned_events=VIOLATION_POLICY_FORWARD), track("Surprise"))
    assert isinstance(forwarded, ValidationResult)
    assert [violation.type for violation in forwarded.violations] == ["Unplanned-Event"]


def test_a_type_that_the_plan_does_not_mention_is_planned_unless_it_is_track() -> None:
    assert check(plan(order_rule()), page()) == ValidationResult(plan="shop", version=3)
    assert isinstance(check(plan(EventRule(type="page")), track("Anything")), Rejection)


def test_the_rule_without_a_name_stands_for_every_event_of_the_type() -> None:
    schema = {"properties": {"traits": {"required": ["email"]}}}
    rules = plan(EventRule(type="identify", json_schema=json.dumps(schema)), EventRule(type="track"), order_rule())
    assert isinstance(check(rules, identify()), ValidationResult)
    assert isinstance(check(rules, identify(traits={"plan": "pro"})), Rejection)
    assert isinstance(check(rules, track("Anything")), ValidationResult)
    assert isinstance(check(rules, track("Order Completed")), Rejection)


def test_draft_07_is_taken_by_its_schema_member() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"context": {"type": "object", "required": ["ip"]}}}
    assert isinstance(check(plan(order_rule(schema)), track("Order Completed")), Rejection)
    assert isinstance(check(plan(order_rule(schema)), track("Order Completed", context={"ip": "1.1.1.1"})), ValidationResult)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (EventRule(type="track", json_schema="{"), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema="5"), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema='{"type": "nonsense"}'), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema='{"pattern": "("}'), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema='{"$ref": "https://elsewhere.example/schema.json"}'), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema='{"$ref": "file:///etc/passwd"}'), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="track", json_schema='{"$schema": "https://elsewhere.example/"}'), "tracking_plan.rules[0].json_schema"),
        (EventRule(type="click"), "tracking_plan.rules[0].type"),
    ],
)
def test_a_rule_that_does_not_compile_names_its_field(rule: EventRule, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        compile_plan(plan(rule))
    assert refusal.value.metadata == {"field": field}
    assert refusal.value.field_violations[0][0] == field


def test_two_rules_for_one_event_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="already"):
        compile_plan(plan(order_rule(), order_rule()))


def test_properties_that_are_no_json_are_a_fault_and_not_a_violation() -> None:
    with pytest.raises(Rejected, match="properties is not JSON"):
        check(plan(order_rule()), Event(workspace_id=WORKSPACE, source_id=SOURCE, type=1, name="Order Completed", properties=b"{"))


def test_a_backtracking_pattern_ends() -> None:
    schema = {"properties": {"properties": {"properties": {"a": {"pattern": "^(a+)+$"}}}}}
    assert isinstance(check(plan(order_rule(schema)), track("Order Completed", properties={"a": "a" * 60 + "b"})), Rejection)
