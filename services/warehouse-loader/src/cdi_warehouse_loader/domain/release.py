"""From noised measures to an answer: which groups are large enough, and what is said of them.

Everything here works on noised numbers only, so nothing of it costs privacy (post-processing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdi_warehouse_loader.domain.aggregates import Aggregate, Function, Kind, Measure, Plan

SMALL_GROUP_CHANCE: Final = 1e-9
"""That noise lifts a group of fewer people than the minimum over the threshold."""

ACCURACY_CHANCE: Final = 0.05

LARGEST: Final = 1 << 62
"""Measures are cut here: noise is added to 64-bit integers, and cutting changes no difference for the worse."""


class Noised(NamedTuple):
    """A measure of all groups after noise.

    Attributes:
        values: in the order of the groups; of people, with those outside of the conditions as a last one.
        margin: the noise is larger than this with at most ``2 * SMALL_GROUP_CHANCE``, on both sides together.
        accuracy: the noise is larger than this with at most ``ACCURACY_CHANCE``.
    """

    values: Sequence[int]
    margin: float
    accuracy: float


class Value(NamedTuple):
    """One aggregate of a group; an accuracy of 0 is not known."""

    value: float
    accuracy: float


class Group(NamedTuple):
    """A group that is large enough."""

    keys: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What leaves the clean room. ``too_few_outside``: refused, and there are no groups."""

    groups: tuple[Group, ...]
    suppressed: int
    too_few_outside: bool = False


def vector(plan: Plan, measure: Measure, totals: Mapping[tuple[str, ...], Sequence[int]], outside: int) -> list[int]:
    """A measure of all groups that there can be, before noise: groups without rows are zeros.

    Args:
        plan: of the query.
        measure: one of its measures.
        totals: by group, one number per measure of the plan.
        outside: people of the table who fulfil the conditions in no row.
    """
    index = plan.measures.index(measure)
    values = [totals[group][index] if group in totals else 0 for group in plan.groups]
    if measure.kind is Kind.PEOPLE:
        values.append(outside)
    return [max(-LARGEST, min(LARGEST, value)) for value in values]


def release(plan: Plan, aggregates: Sequence[Aggregate], minimum: int, noised: Mapping[Measure, Noised]) -> Answer:
    """The answer.

    A group is shown when its noised number of people reaches the minimum and the margin of the noise. With conditions, the people whom they
    leave out have to be as many: otherwise the answer and that of all people would tell them by their difference.
    """
    people = noised[Measure(Kind.PEOPLE)]
    threshold = minimum + people.margin
    *inside, outside = people.values
    groups = list(plan.groups)
    if plan.conditions and outside < threshold:
        return Answer((), len(groups), too_few_outside=True)
    shown = tuple(
        Group(group, tuple(_value(plan, aggregate, noised, place) for aggregate in aggregates))
        for place, group in enumerate(groups)
        if inside[place] >= threshold
    )
    return Answer(shown, len(groups) - len(shown))


def _value(plan: Plan, aggregate: Aggregate, noised: Mapping[Measure, Noised], place: int) -> Value:
    function, column = aggregate
    if function in {Function.COUNT, Function.PEOPLE}:
        counted = noised[Measure(Kind.ROWS if function is Function.COUNT else Kind.PEOPLE)]
        return Value(float(max(0, counted.values[place])), counted.accuracy)
    number = plan.numbers[column]
    steps = noised[Measure(Kind.SUM, column)]
    total = steps.values[place] * number.step
    if function is Function.SUM:
        return Value(total, steps.accuracy * number.step)
    present = max(1, noised[Measure(Kind.PRESENT, column)].values[place])
    return Value(min(number.upper, max(number.lower, total / present)), 0.0)
