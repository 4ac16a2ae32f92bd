"""TC strings: the rules of the specification, one by one."""

import pytest

from cdi_consent.domain.signals.registry import read
from cdi_consent.domain.signals.signal import Reading, SignalKind

from .tc_strings import tc_string, text_of

DEADLINE_DS = 17_723_232_000  # 2026-03-01


def tcf(text: str) -> Reading:
    reading = read(SignalKind.TCF, text)
    assert reading.unknown == ""
    return reading


def test_the_answers_are_those_to_purposes_interests_and_features_of_the_policies() -> None:
    reading = tcf(tc_string(purposes=[1, 3], interests=[7], features=[2]))
    granted = {key for key, answer in reading.answers if answer}
    assert granted == {"tcf.purpose.1", "tcf.purpose.3", "tcf.li.7", "tcf.special_feature.2"}
    assert len(reading.answers) == 11 + 11 + 2
    assert (reading.version, reading.decide_us) == ("tcf 2 policy 4 cmp 31/2 gvl 150", 1_750_000_000_000_000)


@pytest.mark.parametrize(("policy", "established"), [(2, {2, 3, 4, 5, 6, 7}), (4, {2, 7})])
def test_legitimate_interest_is_no_basis_for_purpose_1_and_since_2_2_for_3_to_6(policy: int, established: set[int]) -> None:
    reading = tcf(tc_string(policy=policy, interests=range(1, 8)))
    assert {number for number in range(1, 25) if reading.answer(f"tcf.li.{number}")} == established


def test_purpose_1_that_was_not_disclosed_has_no_consent() -> None:
    assert tcf(tc_string(purposes=[1, 2], purpose_one_treatment=True)).answer("tcf.purpose.1") is False
    assert tcf(tc_string(purposes=[1, 2])).answer("tcf.purpose.1") is True


def test_a_vendor_needs_its_own_consent_and_that_of_the_purpose() -> None:
    reading = tcf(tc_string(purposes=[2], vendors=[755]))
    asked = [
        "tcf.vendor.755",
        "tcf.vendor.755.purpose.2",
        "tcf.vendor.755.purpose.3",
        "tcf.vendor.754.purpose.2",
        "tcf.vendor.756.purpose.2",
    ]
    assert [reading.answer(key) for key in asked] == [True, True, False, False, False]
    assert reading.answer("tcf.vendor_li.755.purpose.2") is False


@pytest.mark.parametrize(
    ("kinds", "by_consent", "by_interest"),
    [
        ((), (True, False), (False, True)),
        ((0,), (False, False), (False, False)),
        ((1,), (True, False), (True, False)),
        ((2,), (False, True), (False, True)),
        ((1, 2), (False, False), (False, False)),
        ((3,), (False, False), (False, False)),
        ((1, 0), (False, False), (False, False)),
    ],
)
def test_publisher_restrictions_decide_before_the_vendors_basis(
    kinds: tuple[int, ...], by_consent: tuple[bool, bool], by_interest: tuple[bool, bool]
) -> None:
    """Each pair is the answer where there is only consent, and where there is only legitimate interest."""
    restrictions = [(7, kind, [(700, 755)]) for kind in kinds]
    consented = tcf(tc_string(purposes=[7], vendors=[755, 10], restrictions=restrictions))
    established = tcf(tc_string(interests=[7], vendor_interests=[755, 10], restrictions=restrictions))
    assert (consented.answer("tcf.vendor.755.purpose.7"), established.answer("tcf.vendor.755.purpose.7")) == by_consent
    assert (consented.answer("tcf.vendor_li.755.purpose.7"), established.answer("tcf.vendor_li.755.purpose.7")) == by_interest
    assert consented.answer("tcf.vendor.10.purpose.7") is True


def test_where_both_bases_are_required_both_must_be_there() -> None:
    restrictions = [(7, 1, [(755, 755)]), (7, 2, [(755, 755)])]
    both = tc_string(purposes=[7], vendors=[755], interests=[7], vendor_interests=[755], restrictions=restrictions)
    assert tcf(both).answer("tcf.vendor.755.purpose.7") is True


def test_a_vendor_that_was_not_disclosed_may_do_nothing() -> None:
    reading = tcf(tc_string(policy=5, interests=[7], purposes=[7], vendors=[10, 755], vendor_interests=[10, 755], disclosed=[10]))
    for key in ("tcf.vendor.{}", "tcf.vendor_li.{}", "tcf.vendor.{}.purpose.7", "tcf.vendor_li.{}.purpose.7"):
        assert (reading.answer(key.format(10)), reading.answer(key.format(755))) == (True, False)


@pytest.mark.parametrize(
    ("policy", "updated_ds", "answer"), [(4, DEADLINE_DS - 1, True), (4, DEADLINE_DS, False), (5, DEADLINE_DS - 1, False)]
)
def test_without_the_segment_nobody_is_disclosed_once_it_is_mandatory(policy: int, updated_ds: int, answer: bool) -> None:
    reading = tcf(tc_string(policy=policy, updated_ds=updated_ds, purposes=[1], interests=[7], vendor_interests=[755]))
    assert reading.answer("tcf.vendor_li.755.purpose.7") is answer
    assert reading.answer("tcf.purpose.1") is True
    assert bool(reading.skipped) is not answer


@pytest.mark.parametrize(
    "key",
    [
        "tcf.purpose.0", "tcf.purpose.25", "tcf.purpose.01", "tcf.purpose.²", "tcf.purpose.", "tcf.purpose", "tcf", "", "tcf.vendor.0",
        "tcf.vendor.65536", "tcf.vendor.1.purpose.25", "tcf.vendor.1.feature.1", "tcf.li.-1", "tcf.publisher.purpose.1", "ads", "us.sale",
        "tcf.purpose.1.purpose.1",
    ],
)  # fmt: skip
def test_a_key_that_the_string_cannot_answer_has_no_answer(key: str) -> None:
    assert tcf(tc_string(purposes=range(1, 25), vendors=[1])).answer(key) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "tcf: ends at bit 0"),
        ("COvFyGBOvFyGBAbAA$AENAP", "tcf: bad base64 at 17"),
        (tc_string()[:8] + "!!!!" + tc_string()[8:], "tcf: bad base64 at 8"),
        ("COvFyGB+", "tcf: bad base64 at 7"),
        ("CAAA=", "tcf: bad base64 at 4"),
        ("BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA", "tcf: version 1 is not read"),
        ("DBABMA~CPXxRfA", "tcf: bad base64 at 6"),
        (tc_string(vendors=[755])[:60], "tcf: ends at bit 360"),
        (tc_string(vendors=[755], disclosed=[1]) + "." + text_of("001" + "0" * 17), "tcf: two segments disclosed vendors"),
        (tc_string() + ".", "tcf: ends at bit 0"),
        (tc_string(restrictions=[(1, 0, [(9, 8)])]), "tcf: a range of vendors from 9 to 8"),
        (tc_string(restrictions=[(1, 0, [(0, 8)])]), "tcf: a range of vendors from 0 to 8"),
        ("C" * 20_000, "tcf: longer than 16384 characters"),
        ("CÄAA", "tcf: bad base64 at 1"),
        ("C\0AA", "tcf: bad base64 at 1"),
    ],
)
def test_what_is_no_tc_string_says_nothing_and_why(text: str, reason: str) -> None:
    reading = read(SignalKind.TCF, text)
    assert (reading.unknown, reading.answers, reading.answer("tcf.purpose.1"), reading.raw) == (reason, (), None, text)


def test_other_segments_are_told_and_harmless() -> None:
    reading = tcf(tc_string(purposes=[1]) + "." + text_of("010" + "0" * 17) + "." + text_of("111" + "0" * 17))
    assert [skipped.split(",")[0] for skipped in reading.skipped] == ["tcf: segment of type 7", "tcf: allowed vendors"]
    assert reading.answer("tcf.purpose.1") is True
