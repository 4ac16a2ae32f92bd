"""The SQL of a clean room's query. Names come from the checked document and are quoted; everything that a partner says is a parameter.

What one person can change is bounded here, by that person's own rows alone: at most ``max_rows`` rows of each of at most ``max_groups``
groups, chosen by hash, and numbers cut to their bounds in whole steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.aggregates import Boolean, Condition, Kind, Measure, Numbers, Plan, Texts, Times
from cdi_warehouse_loader.domain.clean_room import Key, Number
from cdi_warehouse_loader.warehouses.duckdb.sql import place, quoted

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Whom the graph does not know is who the event says; an event of nobody is a person of its own.
_PERSON: Final = "coalesce(canonical_profile_id, 'user ' || user_id, 'anonymous ' || anonymous_id, 'event ' || id)"


class Statement:
    """A statement with its parameters, put together."""

    def __init__(self) -> None:
        self.parameters: list[object] = []

    def parameter(self, value: object) -> str:
        """The place of a value in the text."""
        self.parameters.append(value)
        return f"${len(self.parameters)}"


def statement_of(plan: Plan) -> tuple[str, list[object]]:
    """The one statement of a plan, with its parameters.

    Its rows: a boolean, whether the row is that of the people outside of the conditions; the keys of the group; a number per measure of
    the plan, where the row of those outside has only the first.
    """
    made = Statement()
    keys = [f"k{index}" for index in range(len(plan.keys))]
    grouped = "".join(f", {key}" for key in keys)
    measures = ", ".join(_measure(measure) for measure in plan.measures)
    text = f"""with events as materialized ({_events(plan, made)}),
chosen as (
    select * from events where selected{"".join(f" and {key} is not null" for key in keys)}
    qualify row_number() over (partition by person{grouped} order by hash(id), id) <= {plan.table.max_rows}
        and {_bounded_groups(plan, keys)}
)
select false{grouped}, {measures} from chosen {f"group by {', '.join(keys)}" if keys else ""}
union all
select true{", null" * len(keys)}, count(*){", 0" * (len(plan.measures) - 1)}
from (select person from events group by person having not bool_or(selected))"""
    return text, made.parameters


def _events(plan: Plan, made: Statement) -> str:
    """Rows that consent lets in, with their person; ``selected`` are those that fulfil the conditions."""
    columns = [
        f"{_PERSON} as person",
        "id",
        f"{' and '.join(_condition(condition, made) for condition in plan.conditions) or 'true'} as selected",
        *(f"{_key(key, made)} as k{index}" for index, key in enumerate(plan.keys)),
        *(f"{_steps(number)} as {quoted(_alias(column))}" for column, number in plan.numbers.items()),
    ]
    macro, table = place(plan.schema, naming.BY_PERSON), quoted(plan.table.name)
    granted = "coalesce(list_has_all(from_json(consent_purposes, '[\"VARCHAR\"]'), {}), false)"
    return f"""select {", ".join(columns)} from {macro}({table})
    where workspace_id = {made.parameter(plan.workspace_id)} and {granted.format(made.parameter(list(plan.purposes)))}"""


def _bounded_groups(plan: Plan, keys: list[str]) -> str:
    if not keys or plan.table.max_groups >= plan.group_count:
        return "true"
    listed = ", ".join(keys)
    return f"dense_rank() over (partition by person order by hash(person, {listed}), {listed}) <= {plan.table.max_groups}"


def _key(key: Key, made: Statement) -> str:
    """The group's name; NULL where it is none of the declared ones."""
    text = f"{quoted(key.column)}::varchar"
    return f"case when list_contains({made.parameter(list(key.values))}, {text}) then {text} end"


def _steps(number: Number) -> str:
    """The value in whole steps within the bounds; NULL stays NULL, which ``greatest`` alone would take for the lower bound."""
    (low, high), column = number.steps, quoted(number.column)
    cut = f"least(greatest(round({column}::double / {number.step!r}::double), {low}), {high})::bigint"
    return f"case when {column} is not null then {cut} end"


def _alias(column: str) -> str:
    return f"n_{column}"


def _measure(measure: Measure) -> str:
    column = quoted(_alias(measure.column))
    return {
        Kind.PEOPLE: "count(distinct person)",
        Kind.ROWS: "count(*)",
        Kind.SUM: f"coalesce(sum({column}), 0)",
        Kind.PRESENT: f"count({column})",
    }[measure.kind]


def _condition(condition: Condition, made: Statement) -> str:
    return f"coalesce({' and '.join(_tests(condition, made))}, false)"


def _tests(condition: Condition, made: Statement) -> Iterator[str]:
    column = quoted(condition.column)
    match condition.test:
        case Texts(texts):
            yield f"list_contains({made.parameter(list(texts))}, {column})"
        case Boolean(boolean):
            yield f"{column} = {made.parameter(boolean)}"
        case Numbers(low, high):
            yield from (f"{column} {sign} {made.parameter(end)}::double" for sign, end in ((">=", low), ("<", high)) if end is not None)
        case Times(low, high):
            ends = ((">=", low), ("<", high))
            yield from (f"{column} {sign} {made.parameter(EPOCH + timedelta(microseconds=end))}" for sign, end in ends if end is not None)
