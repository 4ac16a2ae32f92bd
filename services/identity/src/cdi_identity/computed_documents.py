"""``cdi.identity.v1.ComputedTrait`` ↔ the domain's definition: for the request, the answer, and the document that is stored."""

from __future__ import annotations

from cdi.identity.v1 import computed_traits_service_pb2 as pb
from cdi_identity.domain import json_values
from cdi_identity.domain.computed_traits import Aggregation, ComputedTrait, Condition, Operator
from cdi_kernel.faults import InvalidArgument


def computed_trait(message: pb.ComputedTrait) -> ComputedTrait:
    """The definition of a message; a value that is no JSON is ``json_values.MISSING``.

    Raises:
        InvalidArgument: an aggregation or operator is none that this version knows, or the window has less than a microsecond.
    """
    if message.aggregation not in {*Aggregation}:
        raise _unknown("trait.aggregation")
    for index, condition in enumerate(message.conditions):
        if condition.operator not in {*Operator}:
            raise _unknown(f"trait.conditions[{index}].operator")
    window_us = message.window.seconds * 1_000_000 + message.window.nanos // 1_000
    if message.HasField("window") and window_us <= 0:
        raise InvalidArgument("the computed trait is not valid", field_violations=[("trait.window", "must be positive")])
    return ComputedTrait(
        workspace_id=message.workspace_id,
        name=message.name,
        aggregation=Aggregation(message.aggregation),
        event_type=message.event_type,
        event_names=tuple(message.event_names),
        path=message.path,
        conditions=tuple(_condition(condition) for condition in message.conditions),
        window_us=window_us,
        version=message.version,
    )


def message(trait: ComputedTrait) -> pb.ComputedTrait:
    """The message of a definition."""
    result = pb.ComputedTrait(
        workspace_id=trait.workspace_id,
        name=trait.name,
        aggregation=pb.Aggregation.ValueType(trait.aggregation),
        event_type=trait.event_type,
        event_names=trait.event_names,
        path=trait.path,
        version=trait.version,
    )
    for condition in trait.conditions:
        result.conditions.add(
            path=condition.path,
            operator=pb.ConditionOperator.ValueType(condition.operator),
            values=[json_values.text(value) or "null" for value in condition.values],
        )
    if trait.window_us:
        result.window.FromMicroseconds(trait.window_us)
    return result


def _condition(given: pb.Condition) -> Condition:
    return Condition(given.path, Operator(given.operator), tuple(json_values.decode(value.encode()) for value in given.values))


def _unknown(field: str) -> InvalidArgument:
    return InvalidArgument("the computed trait is not valid", field_violations=[(field, "unknown")])
