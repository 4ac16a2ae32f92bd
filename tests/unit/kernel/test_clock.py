"""Reading a client's times, and correcting its clock."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US, correct_skew, instant_of, parse_instant

NOON = 1_795_262_400_000_000
INSTANTS = st.integers(MIN_INSTANT_US, MAX_INSTANT_US)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21T13:00:00.000+01:00", NOON),
        ("2026-11-21T12:00:00", NOON),
        ("2026-11-21", NOON - 12 * 3600 * 1_000_000),
        (NOON // 1_000_000, NOON),
        (NOON // 1_000, NOON),
        ("yesterday", None),
        ("", None),
        (True, None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        ({}, None),
    ],
)
def test_instants(value: object, expected: int | None) -> None:
    assert parse_instant(value) == expected


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_a_written_instant_reads_back_to_the_microsecond(moment: datetime) -> None:
    assert parse_instant(moment.isoformat()) == instant_of(moment)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_no_value_escapes_the_range(value: object) -> None:
    instant = parse_instant(value)
    assert instant is None or MIN_INSTANT_US <= instant <= MAX_INSTANT_US


@given(INSTANTS, st.none() | INSTANTS, st.none() | INSTANTS)
def test_a_clock_off_by_millennia_is_survived(received: int, original: int | None, sent: int | None) -> None:
    assert MIN_INSTANT_US <= correct_skew(received, original, sent) <= MAX_INSTANT_US


def test_skew_is_taken_out() -> None:
    fast_by = 3_600_000_000
    assert correct_skew(NOON, NOON + fast_by - 5_000_000, NOON + fast_by) == NOON - 5_000_000
