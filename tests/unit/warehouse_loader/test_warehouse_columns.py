"""Fitting values into columns: nothing raises, nothing vanishes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_warehouse_loader.domain.columns import ColumnType, fit
from cdi_warehouse_loader.domain.flatten import flatten

SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=12
)


class Plain(dict[str, str]):
    """Names every column by its path."""

    def __missing__(self, path: str) -> str:
        return path


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 2], ColumnType.BIGINT, [1, None, 2]),
        ([1, 2.5], ColumnType.DOUBLE, [1.0, 2.5]),
        ([True, None], ColumnType.BOOLEAN, [True, None]),
        (["a", None], ColumnType.TEXT, ["a", None]),
        (["2026-01-15", "2026-01-16"], ColumnType.TEXT, ["2026-01-15", "2026-01-16"]),
        ([2**70], ColumnType.TEXT, [str(2**70)]),
        ([[1, "a", {"b": None}]], ColumnType.TEXT, ['[1,"a",{"b":null}]']),
        (["a\x00b"], ColumnType.TEXT, ["a\x00b"]),
    ],
)
def test_the_first_value_fixes_the_type(values: list[Any], kind: ColumnType, expected: list[Any]) -> None:
    fitted = fit(values, None)
    assert fitted is not None
    assert (fitted.type, fitted.array.to_pylist(), list(fitted.misfits)) == (kind, expected, [])


def test_full_instants_become_times() -> None:
    fitted = fit(["2026-01-15T12:00:00Z", "2026-01-15T14:00:00.5+02:00", None], None)
    assert fitted is not None
    assert fitted.type is ColumnType.TIMESTAMP
    first, second, third = fitted.array.to_pylist()
    assert (second - first).total_seconds() == 0.5
    assert third is None


def test_one_text_that_is_no_instant_makes_the_new_column_text() -> None:
    fitted = fit(["2026-01-15T12:00:00Z", "tomorrow"], None)
    assert fitted is not None
    assert fitted.type is ColumnType.TEXT


def test_a_column_without_a_value_does_not_appear() -> None:
    assert fit([None, None], None) is None


def test_integers_widen_to_double() -> None:
    fitted = fit([1.5, 2], ColumnType.BIGINT)
    assert fitted is not None
    assert (fitted.type, fitted.array.to_pylist()) == (ColumnType.DOUBLE, [1.5, 2.0])


def test_text_takes_anything() -> None:
    fitted = fit([True, 1, 2.5, "a", [1], None], ColumnType.TEXT)
    assert fitted is not None
    assert fitted.array.to_pylist() == ["true", "1", "2.5", "a", "[1]", None]
    assert not fitted.misfits


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (ColumnType.BIGINT, "many", "type_conflict"),
        (ColumnType.BIGINT, True, "type_conflict"),
        (ColumnType.BIGINT, 2**63, "out_of_range"),
        (ColumnType.BIGINT, "9999999999999999999", "out_of_range"),
        (ColumnType.BIGINT, [1], "type_conflict"),
        (ColumnType.DOUBLE, "much", "type_conflict"),
        (ColumnType.DOUBLE, 10**400, "out_of_range"),
        (ColumnType.BOOLEAN, 1, "type_conflict"),
        (ColumnType.BOOLEAN, "yes", "type_conflict"),
        (ColumnType.TIMESTAMP, "tomorrow", "type_conflict"),
        (ColumnType.TIMESTAMP, 5, "type_conflict"),
    ],
)
def test_what_does_not_fit_is_kept_aside(kind: ColumnType, value: Any, reason: str) -> None:
    fitted = fit([None, value], kind)
    assert fitted is not None
    assert fitted.array.to_pylist() == [None, None]
    assert [(misfit.row, misfit.reason) for misfit in fitted.misfits] == [(1, reason)]


@pytest.mark.parametrize(
    ("kind", "value", "kept"), [(ColumnType.BIGINT, "12", 12), (ColumnType.DOUBLE, "1.5", 1.5), (ColumnType.BOOLEAN, "True", True)]
)
def test_text_that_says_the_value_fits(kind: ColumnType, value: str, kept: Any) -> None:
    fitted = fit([value], kind)
    assert fitted is not None
    assert fitted.array.to_pylist() == [kept]


@given(st.lists(SCALARS | st.lists(SCALARS, max_size=3), min_size=1, max_size=8), st.none() | st.sampled_from(list(ColumnType)))
def test_any_values_fit_any_column_or_are_kept_aside(values: list[Any], known: ColumnType | None) -> None:
    if known is ColumnType.INTEGER:
        known = ColumnType.BIGINT
    fitted = fit(values, known)
    if fitted is None:
        assert all(value is None for value in values)
        return
    kept = fitted.array.to_pylist()
    aside = {misfit.row for misfit in fitted.misfits}
    assert len(kept) == len(values)
    for row, value in enumerate(values):
        assert (kept[row] is None) == (value is None or row in aside)
        assert row not in aside or kept[row] is None


@given(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), max_size=8))
def test_flattening_keeps_every_value_once(objects: list[dict[str, Any]]) -> None:
    flat = flatten(objects, Plain())
    assert sorted(flat.order) == list(range(len(objects)))
    assert all(len(column) == len(objects) for column in flat.columns.values())
    kept = sum(value is not None for column in flat.columns.values() for value in column) + len(flat.collisions)
    assert kept == sum(_leaves(value) for value in objects)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=3), max_size=3), max_size=10))
def test_flat_objects_come_back_as_they_were(objects: list[dict[str, Any]]) -> None:
    flat = flatten(objects, Plain())
    for row, place in enumerate(flat.order):
        assert {name: column[row] for name, column in flat.columns.items() if column[row] is not None} == objects[place]


def test_deep_nesting_ends_as_text() -> None:
    value: dict[str, Any] = {"end": 1}
    for _ in range(40):
        value = {"x": value}
    (name, column), *others = flatten([value], Plain()).columns.items()
    assert not others
    assert name.count("x") == 16
    assert json.loads(column[0])


def _leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_leaves, value.values()))
    return value is not None


NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


def loaded(batches: list[list[Any]]) -> tuple[ColumnType | None, list[Any], int]:
    """The type of a column after several loads, its values in the last type, and how many did not fit."""
    known: ColumnType | None = None
    values: list[Any] = []
    misfits = 0
    for batch in batches:
        fitted = fit(batch, known)
        if fitted is not None:
            known = fitted.type
            values += fitted.array.to_pylist()
            misfits += len(fitted.misfits)
    if known is ColumnType.DOUBLE:
        values = [None if value is None else float(value) for value in values]
    return known, values, misfits


@given(st.lists(NUMBERS, min_size=1, max_size=8), st.data())
def test_numbers_widen_to_the_same_type_in_whatever_order_and_loads_they_come(numbers: list[Any], data: st.DataObject) -> None:
    """Widening is associative and commutative, and no number is lost by it."""
    kind, _, misfits = loaded([numbers])
    assert (kind, misfits) == (ColumnType.DOUBLE if any(isinstance(one, float) for one in numbers) else ColumnType.BIGINT, 0)
    shuffled = data.draw(st.permutations(numbers))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(numbers)), max_size=3)))
    batches = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    again, values, misfits = loaded([batch for batch in batches if batch])
    assert (again, misfits) == (kind, 0)
    assert sorted(values) == sorted(float(one) if kind is ColumnType.DOUBLE else one for one in numbers)


@example(one=[2**53 + 1], other=[0.0], known=ColumnType.BIGINT)
@example(one=[2**63], other=[0.0], known=ColumnType.BIGINT)
@given(st.lists(SCALARS, max_size=6), st.lists(SCALARS, max_size=6), st.sampled_from([kind for kind in ColumnType if kind != "INTEGER"]))
def test_a_column_that_stands_takes_values_in_whatever_loads_they_come(one: list[Any], other: list[Any], known: ColumnType) -> None:
    """Apart from widening, what becomes of a value depends on the column and on nothing that came with it."""
    together, apart = fit([*one, *other], known), [fit(one, known), fit(other, known)]
    assert together is not None
    assert all(part is not None for part in apart)
    kept = [value for part in apart if part is not None for value in part.array.to_pylist()]
    misfits = sum(len(part.misfits) for part in apart if part is not None)
    if together.type is known:
        assert (together.array.to_pylist(), len(together.misfits)) == (kept, misfits)
        return
    # As the warehouse has it that widens a column: integers above 2^53 are rounded, and those above 2^63 had no place before.
    gained = 0
    for value, before in zip(together.array.to_pylist(), kept, strict=True):
        gained += value is not None and before is None
        assert before is None or value == float(before)
    assert len(together.misfits) == misfits - gained
