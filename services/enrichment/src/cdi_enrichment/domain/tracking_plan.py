"""Tracking plans: which events there are and what they must look like.

A plan is compiled once, when it is applied or loaded; checking an event decodes JSON only if a rule has a schema for it.
Schemas are JSON Schema 2020-12, or draft-07 by their ``$schema``, over ``{"properties": …, "traits": …, "context": …}`` with ``{}``
for what the event does not have. A ``$ref`` to elsewhere is refused, never fetched.
Violations name kinds and places in Segment's words, never values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs
import orjson

from cdi.enrichment.v1 import tracking_plan_pb2
from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2, rejected_event_pb2
from cdi_enrichment.domain.rejection import Rejection
from cdi_kernel.faults import InvalidArgument, Rejected

MAX_VIOLATIONS: Final = 50
"""Reported of one event; the first ones."""

MAX_PATH_LENGTH: Final = 300

UNPLANNED_EVENT: Final = "Unplanned-Event"
_TYPES: Final = {
    "track": event_pb2.EVENT_TYPE_TRACK,
    "identify": event_pb2.EVENT_TYPE_IDENTIFY,
    "page": event_pb2.EVENT_TYPE_PAGE,
    "screen": event_pb2.EVENT_TYPE_SCREEN,
    "group": event_pb2.EVENT_TYPE_GROUP,
    "alias": event_pb2.EVENT_TYPE_ALIAS,
}
_KINDS: Final = {
    "required": "Required-Missing",
    "dependentRequired": "Required-Missing",
    "type": "Datatype-Mismatch",
    "additionalProperties": "Additional-Properties",
    "unevaluatedProperties": "Additional-Properties",
}


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule; without a validator it only says that the event is planned."""

    validator: jsonschema_rs.Validator | None


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """A plan, ready to check events.

    Attributes:
        plan: as it was applied, with its version.
        rules: by event type and name; the name "" stands for every event of the type.
        types: event types that the plan speaks about.
    """

    plan: tracking_plan_pb2.TrackingPlan
    rules: Mapping[tuple[int, str], CompiledRule]
    types: frozenset[int]


@dataclass(frozen=True, slots=True)
class PlanSnapshot:
    """All plans as they were at one moment: what one batch is checked against.

    Attributes:
        revision: of the store that it was read from.
        by_source: the plan that covers a (workspace, source).
    """

    revision: int = -1
    by_source: Mapping[tuple[str, str], CompiledPlan] = field(default_factory=dict)

    def check(self, event: event_pb2.Event) -> event_pb2.ValidationResult | Rejection | None:
        """What the plan of the event's source says: ``None`` without a plan, a rejection when the plan blocks the event.

        Raises:
            Rejected: a JSON part of the event that the plan needs is not a JSON object.
        """
        compiled = self.by_source.get((event.workspace_id, event.source_id))
        return None if compiled is None else _check(compiled, event)


def compile_plan(plan: tracking_plan_pb2.TrackingPlan) -> CompiledPlan:
    """A plan with its schemas compiled.

    Raises:
        InvalidArgument: a rule has an unknown type, comes twice, or has a schema that does not compile; names the field.
    """
    rules: dict[tuple[int, str], CompiledRule] = {}
    for position, rule in enumerate(plan.rules):
        path = f"tracking_plan.rules[{position}]"
        if rule.type not in _TYPES:
            raise _invalid(f"{path}.type", f"must be one of {', '.join(_TYPES)}")
        key = (_TYPES[rule.type], rule.event)
        if key in rules:
            raise _invalid(f"{path}.event", "there is a rule for this event already")
        rules[key] = CompiledRule(_validator(rule.json_schema, f"{path}.json_schema") if rule.json_schema else None)
    return CompiledPlan(plan, rules, frozenset(kind for kind, _ in rules))


def _validator(schema: str, path: str) -> jsonschema_rs.Validator:
    try:
        document = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise _invalid(path, f"is not JSON: {error}") from error
    if not isinstance(document, dict | bool):
        raise _invalid(path, "is not a JSON Schema: neither an object nor a boolean")
    if isinstance(document, bool):
        document = {} if document else {"not": {}}
    try:
        return jsonschema_rs.validator_for(document, offline=True, validate_formats=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise _invalid(path, f"does not compile: {error.message}") from error
    except ValueError as error:
        raise _invalid(path, f"does not compile: {error}") from error


def _invalid(path: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"{path} {text}", metadata={"field": path}, field_violations=[(path, text)])


def _check(compiled: CompiledPlan, event: event_pb2.Event) -> event_pb2.ValidationResult | Rejection:
    plan = compiled.plan
    rule = compiled.rules.get((event.type, event.name)) or compiled.rules.get((event.type, ""))
    if rule is None:
        # As in Segment's plans, a type other than track that the plan does not mention at all is not planned against.
        if event.type != event_pb2.EVENT_TYPE_TRACK and event.type not in compiled.types:
            return event_pb2.ValidationResult(plan=plan.name, version=plan.version)
        violations = [event_pb2.Violation(type=UNPLANNED_EVENT, path="/event", description="the plan does not list this event")]
        reason, policy = error_pb2.ERROR_REASON_UNPLANNED_EVENT, plan.unplanned_events
        sentence = f"tracking plan {plan.name} does not list this event"
    else:
        violations = _violations(rule.validator, event) if rule.validator is not None else []
        reason, policy = error_pb2.ERROR_REASON_SCHEMA_VIOLATION, plan.violations
        sentence = f"the event breaks tracking plan {plan.name}"
    if violations and policy != tracking_plan_pb2.VIOLATION_POLICY_FORWARD:
        kinds = ", ".join(sorted({violation.type for violation in violations}))
        return Rejection(
            rejected_event_pb2.FAILURE_TYPE_SCHEMA_VIOLATION, reason, f"{sentence}: {kinds}", [violation.path for violation in violations]
        )
    return event_pb2.ValidationResult(plan=plan.name, version=plan.version, violations=violations)


def _violations(validator: jsonschema_rs.Validator, event: event_pb2.Event) -> list[event_pb2.Violation]:
    subject = {
        "properties": _document(event.properties, "properties"),
        "traits": _document(event.traits, "traits"),
        "context": _document(event.context, "context"),
    }
    if validator.is_valid(subject):
        return []
    found: list[event_pb2.Violation] = []
    for error in validator.iter_errors(subject):
        found.extend(_described(error))
        if len(found) >= MAX_VIOLATIONS:
            break
    return found[:MAX_VIOLATIONS]


def _document(part: bytes, name: str) -> Any:
    if not part:
        return {}
    try:
        return orjson.loads(part)
    except orjson.JSONDecodeError as error:
        raise Rejected(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, f"{name} is not JSON", metadata={"field": name}) from error


def _described(error: jsonschema_rs.ValidationError) -> list[event_pb2.Violation]:
    """A validator's error as violations. Its own message quotes the event, so only keyword and place are taken over."""
    keyword = error.kind.name
    kind = _KINDS.get(keyword, "Advance-Rules-Violation")
    detail = error.kind.as_dict()
    if keyword == "required":
        return [_violation(kind, [*error.instance_path, detail["property"]], "the plan requires it")]
    if kind == "Additional-Properties" and "unexpected" in detail:
        return [_violation(kind, [*error.instance_path, key], "the plan does not list it") for key in detail["unexpected"]]
    if keyword == "type":
        return [_violation(kind, error.instance_path, f"the plan expects {' or '.join(detail['types'])}")]
    return [_violation(kind, error.instance_path, f"breaks the keyword {keyword} of its schema")]


def _violation(kind: str, path: Sequence[str | int], description: str) -> event_pb2.Violation:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return event_pb2.Violation(type=kind, path=pointer[:MAX_PATH_LENGTH], description=description)
