"""What one event gives to a computed trait: conditions and values as JSON compares them, numbers exactly."""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_identity.domain import json_values
from cdi_identity.domain.computed_traits import MAX_TEXT, Aggregation, ComputedTrait, Condition, Definition, Definitions, Operator, problems
from cdi_identity.domain.json_values import MISSING

scalars = st.none() | st.booleans() | st.integers() | st.decimals(-(10**9), 10**9, places=3) | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))


def of(document: str) -> Callable[[str], Any]:
    """A ``look`` over an event whose properties are this JSON."""
    tree = json_values.decode(document.encode())

    def look(path: str) -> Any:
        root, *keys = path.split(".")
        return json_values.at(tree, keys) if root == "properties" else MISSING

    return look


def trait(aggregation: Aggregation = Aggregation.SUM, path: str = "properties.total", **fields: Any) -> ComputedTrait:
    return ComputedTrait("w", "t", aggregation, "track", path=path, **fields)


def decoded(*texts: str) -> tuple[Any, ...]:
    return tuple(json_values.decode(text.encode()) for text in texts)


@pytest.mark.parametrize(
    ("operator", "given_values", "holding", "failing"),
    [
        (Operator.IN, ("1",), ["1", "1.0", "1e0"], ["true", '"1"', "null", "[1]", None]),
        (Operator.IN, ("true", '"a"'), ["true", '"a"'], ["1", '"A"']),
        (Operator.IN, ("[1,{}]",), ["[1.0,{}]"], ["[true,{}]", "[1]"]),
        (Operator.NOT_IN, ("1",), ["true", "2", "null", None], ["1.0"]),
        (Operator.LESS, ("0.3",), ["0.1", "-5"], ["0.3", "0.30", "true", '"0.1"', "null", None]),
        (Operator.GREATER, ("9007199254740992",), ["9007199254740993"], ["9007199254740992", "9007199254740992.0"]),
        (Operator.CONTAINS, ('"old"',), ['"gold"'], ['"gol"', '["old"]', "null", None]),
        (Operator.EXISTS, (), ["0", '""', "false", "[]"], ["null", None]),
    ],
)
def test_conditions_hold_as_json_compares(
    operator: Operator, given_values: tuple[str, ...], holding: list[str], failing: list[str | None]
) -> None:
    condition = Condition("properties.v", operator, decoded(*given_values))
    found = {text: decoded(text)[0] if text is not None else MISSING for text in (*holding, *failing)}
    assert [text for text, value in found.items() if condition.holds(value)] == holding


@pytest.mark.parametrize(
    ("total", "number", "value"),
    [
        ("0.10", "0.1", "0.1"),
        ("100", "100", "100"),
        ("1e2", "100", "100"),
        ("-0.0", "0", "0"),
        ("12345678901234567890.5", "12345678901234567890.5", "12345678901234567890.5"),
        ("true", None, "true"),
        ('"5"', None, '"5"'),
        ("null", None, None),
        ("1e400", None, None),
        ("[1, 2.50]", None, "[1,2.5]"),
        ('{"b": 1, "a": "\\u0000"}', None, '{"a":"\\u0000","b":1}'),
        ('"' + "x" * MAX_TEXT + '"', None, None),
        ("9" * 61, None, "9" * 61),
    ],
)
def test_what_an_event_gives(total: str, number: str | None, value: str | None) -> None:
    look = of(f'{{"total": {total}}}')
    assert trait(Aggregation.SUM).given(look) == number
    assert trait(Aggregation.UNIQUE_LIST).given(look) == value


def test_the_counter_looks_at_conditions_only_and_all_of_them_have_to_hold() -> None:
    conditions = [Condition("properties.total", Operator.GREATER, (1,)), Condition("properties.a.b", Operator.EXISTS)]
    counter = trait(Aggregation.EVENT_COUNTER, "", conditions=conditions)
    documents = ['{"total": 2, "a": {"b": 0}}', '{"total": 2, "a": 1}', '{"total": 1, "a": {"b": 0}}', "[]", "{"]
    assert [counter.given(of(document)) for document in documents] == ["", None, None, None, None]


@given(values, values)
def test_equal_values_have_one_text_and_others_another(one: Any, other: Any) -> None:
    assert (json_values.text(one) == json_values.text(other)) == json_values.same(one, other)


@given(values)
def test_the_text_is_the_value_again(value: Any) -> None:
    written = json_values.text(value)
    assert written is not None
    assert json_values.same(json_values.decode(written.encode()), value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_what_was_sent(number: float) -> None:
    sent = json.dumps(number)
    written = json_values.text(json_values.decode(sent.encode()))
    if number and abs(math.log10(abs(number))) > json_values.MAX_EXPONENT - 1:
        assert written is None or Decimal(written) == Decimal(sent)
    else:
        assert written is not None
        assert Decimal(written) == Decimal(sent)
        assert "e" not in written.lower()


def test_events_find_their_definitions() -> None:
    named = Definition(1, ComputedTrait("w", "a", Aggregation.EVENT_COUNTER, "track", ("A", "B")))
    every = Definition(2, ComputedTrait("w", "b", Aggregation.EVENT_COUNTER, "track"))
    other = Definition(3, ComputedTrait("v", "a", Aggregation.EVENT_COUNTER, "page"))
    known = Definitions([named, every, other])
    asked = [("w", "track", "B"), ("w", "track", "C"), ("v", "page", "x"), ("v", "track", "A"), ("w", "", "A")]
    assert [list(known.of(*event)) for event in asked] == [[named, every], [every], [other], [], []]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (trait(path="total"), "path"),
        (trait(path="properties."), "path"),
        (trait(path="message_id.x"), "path"),
        (trait(Aggregation.EVENT_COUNTER), "path"),
        (trait(event_names=("a", "a")), "event_names"),
        (trait(window_us=1), "window"),
        (trait(conditions=(Condition("properties.a", Operator.LESS, ("3",)),)), "conditions[0].values"),
        (trait(conditions=(Condition("properties.a", Operator.IN),)), "conditions[0].values"),
        (trait(conditions=(Condition("properties.a", Operator.EXISTS, (1,)),)), "conditions[0].values"),
        (trait(conditions=(Condition("properties.a", Operator.IN, (MISSING,)),)), "conditions[0].values"),
        (trait(conditions=(Condition("a", Operator.EXISTS),) * 21), "conditions"),
    ],
)
def test_a_wrong_definition_names_its_field(wrong: ComputedTrait, field: str) -> None:
    assert field in [name for name, _ in problems(wrong)]


def test_a_right_definition_has_no_problem() -> None:
    conditions = (Condition("context.library.name", Operator.CONTAINS, ("web",)), Condition("properties.a", Operator.IN, (None, 1, "x")))
    assert not list(problems(trait(conditions=conditions, event_names=("A",), window_us=86_400_000_000)))
