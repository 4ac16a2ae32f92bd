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


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.sampled_from(["seconds", "milliseconds"]),
    st.sampled_from(["Z", "+00:00"]),
)
def test_the_form_of_sdks_reads_as_any_other(moment: datetime, precision: str, zone: str) -> None:
    text = moment.isoformat(timespec=precision) + zone
    expected = instant_of(datetime.fromisoformat(text))
    assert [parse_instant(text), parse_instant(text)] == [expected, expected]


@pytest.mark.parametrize("prefix", ["20261121T120000.123", "2026-11-21T12:00+01", "2026-W47-6T12:00:00", "2026-11-21 12:00:00"])
@pytest.mark.parametrize("rest", ["Z", ".456Z", "+00:00", ".456+00:00"])
def test_what_only_looks_like_that_form(prefix: str, rest: str) -> None:
    try:
        expected = instant_of(datetime.fromisoformat(prefix + rest))
    except ValueError:
        expected = None
    assert [parse_instant(prefix + "Z"), parse_instant(prefix + rest)][1] == expected


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
