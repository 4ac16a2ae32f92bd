"""GPP, US Privacy and Sec-GPC: what the sections mean, and what is refused. Layouts are checked against the reference implementation."""

import pytest

from cdi_consent.domain.signals.registry import read
from cdi_consent.domain.signals.signal import SignalKind

from .tc_strings import tc_string


def us_national(sale_notice: int = 1, sale: int = 2, gpc: int | None = None) -> str:
    bits = f"{2:06b}01{sale_notice:02b}0101{0:04b}{sale:02b}1010" + "00" * 16 + "00" * 3 + "00" + "101010"
    core = "".join(base64_of(bits))
    return core if gpc is None else f"{core}.{base64_of(f'01{gpc}000')}"


def base64_of(bits: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bits += "0" * (-len(bits) % 6)
    return "".join(alphabet[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def national(section: str) -> str:
    return f"{base64_of(f'{3:06b}{1:06b}{1:012b}0' + '01011')}~{section}"


@pytest.mark.parametrize(
    ("notice", "opted_out", "answer"),
    [(1, 2, True), (1, 1, False), (2, 0, False), (0, 0, None), (1, 0, None), (0, 2, False), (2, 2, False), (0, 1, False)],
)
def test_not_opting_out_permits_only_after_a_notice(notice: int, opted_out: int, answer: bool | None) -> None:
    reading = read(SignalKind.GPP, national(us_national(notice, opted_out)))
    assert (reading.unknown, reading.version) == ("", "gpp 1, usnat 2")
    assert reading.answer("us.sale") is answer


@pytest.mark.parametrize(("gpc", "answer"), [(0, True), (1, False)])
def test_global_privacy_control_in_a_section_opts_out(gpc: int, answer: bool) -> None:
    reading = read(SignalKind.GPP, national(us_national(gpc=gpc)))
    assert [reading.answer(f"us.{use}") for use in ("sale", "sharing", "targeted_advertising")] == [answer] * 3


def test_the_stricter_of_two_sections_counts() -> None:
    header = base64_of(f"{3:06b}{1:06b}{2:012b}0100110" + "11")  # 6 and 7
    reading = read(SignalKind.GPP, f"{header}~1YYN~{us_national()}")
    assert (reading.unknown, reading.answer("us.sale"), reading.answer("us.sharing")) == ("", False, False)


def test_the_section_of_the_eu_answers_the_keys_of_vendors() -> None:
    reading = read(SignalKind.GPP, "DBABMA~" + tc_string(purposes=[2], vendors=[755]))
    asked = ("tcf.purpose.2", "tcf.vendor.755.purpose.2", "tcf.vendor.754.purpose.2", "us.sale", "tcf.nonsense")
    assert [reading.answer(key) for key in asked] == [True, True, False, None, None]
    assert reading.decide_us == 1_750_000_000_000_000


@pytest.mark.parametrize(
    ("text", "skipped"),
    [
        ("DBABjw~anything at all~1---", "gpp: section 5, or this version of it, is not read"),
        (national(base64_of(f"{9:06b}" + "0" * 90)), "gpp: section 7, or this version of it, is not read"),
    ],
)
def test_sections_that_are_not_read_are_named(text: str, skipped: str) -> None:
    reading = read(SignalKind.GPP, text)
    assert (reading.unknown, reading.skipped, reading.answers) == ("", (skipped,), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "gpp: ends at bit 0"),
        ("CAAA~x", "gpp: no header of GPP"),
        ("DCAA~x", "gpp: version 2 is not read"),
        ("DBABMA", "gpp: the header names more than the 0 sections that follow"),
        ("DBABMA~x~y", "gpp: 2 sections follow a header that names 1"),
        ("DBABAA~x", "gpp: ends at bit 36"),
        ("DBABAAAAAAAA~x", "gpp: a number of the header does not end"),
        ("DBABMA~!", "gpp: section 2: bad base64 at 0"),
        ("DBABMA~" + tc_string()[:9], "gpp: section 2: ends at bit 54"),
        (national(base64_of(f"{2:06b}" + "1" * 90)), "gpp: section 7: notice is 3, which is not defined"),
        (national(us_national()[:8]), "gpp: section 7: ends at bit 48"),
        (national(us_national() + ".AAAA"), "gpp: section 7: a segment that the section does not have"),
        ("D" * 20_000, "gpp: longer than 16384 characters"),
    ],
)
def test_what_is_no_gpp_string_says_nothing_and_why(text: str, reason: str) -> None:
    reading = read(SignalKind.GPP, text)
    assert (reading.unknown, reading.answers, reading.answer("us.sale")) == (reason, (), None)


@pytest.mark.parametrize(
    ("text", "sale", "sharing"),
    [
        ("1YNN", True, None),
        ("1yny", True, None),
        ("1YYN", False, False),
        ("1NYN", False, False),
        ("1NNN", False, None),
        ("1-N-", False, None),
        ("1---", None, None),
        ("1Y--", None, None),
    ],
)
def test_us_privacy_strings(text: str, sale: bool | None, sharing: bool | None) -> None:
    reading = read(SignalKind.US_PRIVACY, text)
    assert (reading.unknown, reading.answer("us.sale"), reading.answer("us.sharing")) == ("", sale, sharing)


@pytest.mark.parametrize("text", ["", "1YN", "1YNNN", "2YNN", "1YXN", "1YNN\n", " 1YNN"])
def test_what_is_no_us_privacy_string(text: str) -> None:
    assert read(SignalKind.US_PRIVACY, text).unknown == "us_privacy: not the digit 1 and three of Y, N and -"


@pytest.mark.parametrize("raw", ["1", b"1", " 1\t"])
def test_sec_gpc_opts_out(raw: str | bytes) -> None:
    reading = read(SignalKind.GPC, raw)
    assert [reading.answer(f"us.{use}") for use in ("sale", "sharing", "targeted_advertising")] == [False] * 3
    assert reading.unknown == ""


@pytest.mark.parametrize("raw", ["0", "", "true", "11", "?1"])
def test_another_value_of_sec_gpc_is_no_preference(raw: str) -> None:
    reading = read(SignalKind.GPC, raw)
    assert (reading.unknown, reading.answers) == ("gpc: not 1: no preference", ())
