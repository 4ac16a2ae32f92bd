"""Whatever is sent: no signal breaks the reader, and none is taken for more than it permits."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_consent.domain.signals.registry import DECODERS, MAX_SIGNAL, combine, read
from cdi_consent.domain.signals.signal import Reading, SignalKind

from .tc_strings import tc_string, text_of

KINDS = st.sampled_from(SignalKind)
PURPOSES = range(1, 25)
KEYS = ("ads", "tcf.purpose.1", "tcf.vendor.755.purpose.2", "us.sale", "google.ad_storage", "C0001", "marketing")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    *("categoryPreferences", "allowedConsentIds", "deniedConsentIds", "resolutionStrategy", "provider", "schema", "data", "eventType"),
    *("consentScopes", "basisForProcessing", "payload", "purposes", "profiles", "profileFields", "identifier", "additionalIdentifiers"),
    *("consent", "necessary", "marketing", "stamp", "utc", "ver", "method", "hasResponse", "ad_storage", "interactionDate", "eventTime"),
)
ANSWERED = st.lists(st.tuples(st.sampled_from(("a", "b", "c")), st.booleans()), max_size=4)


def check(reading: Reading) -> None:
    """What holds for every reading."""
    assert isinstance(reading, Reading)
    assert not (reading.unknown and (reading.answers or reading.otherwise is not None))
    assert len(reading.raw) <= MAX_SIGNAL
    for key in (*KEYS, *dict(reading.answers)):
        assert reading.answer(key) in (True, False, None)
    for key, granted in reading.answers:
        assert reading.answer(key) is granted


def test_every_kind_has_a_reader() -> None:
    assert set(DECODERS) == set(SignalKind)


@given(KINDS, st.text() | st.binary() | st.text(alphabet="ABCDabcd0189-_.~=&:,{}[]\"'%tru\x00ü"))
@example(SignalKind.SEGMENT, "\ud800")
@example(SignalKind.TCF, "\ud800")
@example(SignalKind.SEGMENT, b"\xff")
@example(SignalKind.SEGMENT, '{"categoryPreferences":' + "[" * 20_000)
@example(SignalKind.COOKIEBOT, '{"a":' * 5_000)
@example(SignalKind.GPC, "1\0")
def test_nothing_that_is_sent_breaks_a_reader(kind: SignalKind, raw: str | bytes) -> None:
    check(read(kind, raw))


@given(KINDS, st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=8))
def test_no_document_breaks_a_reader(kind: SignalKind, document: dict[str, Any]) -> None:
    check(read(kind, json.dumps(document)))


@pytest.mark.parametrize("raw", [None, 7, 1.5, True, [], {}, {"categoryPreferences": {"a": True}}, object(), bytearray(b"1")])
@pytest.mark.parametrize("kind", SignalKind)
def test_what_is_not_text_is_no_signal(kind: SignalKind, raw: object) -> None:
    assert read(kind, raw) == Reading(kind, unknown=f"{kind}: not text")


@pytest.mark.parametrize("kind", SignalKind)
def test_of_what_is_too_long_only_the_beginning_is_kept(kind: SignalKind) -> None:
    for raw in ("x" * 10_000_000, b"x" * 10_000_000):
        reading = read(kind, raw)
        assert (reading.unknown, len(reading.raw)) == (f"{kind}: longer than 32768", MAX_SIGNAL)


@given(st.data())
def test_flipped_bits_never_permit_what_the_string_itself_does_not(data: st.DataObject) -> None:
    """A vendor's permission for a purpose always rests on consent, or legitimate interest, of both, in the very string that was read."""
    text = tc_string(
        policy=data.draw(st.sampled_from((2, 4, 5))),
        purposes=data.draw(st.sets(st.integers(1, 24))),
        interests=data.draw(st.sets(st.integers(1, 24))),
        vendors=data.draw(st.sets(st.integers(1, 60))),
        vendor_interests=data.draw(st.sets(st.integers(1, 60))),
        restrictions=data.draw(st.lists(st.tuples(st.integers(1, 11), st.integers(0, 3), st.just([(1, 9), (50, 50)])), max_size=3)),
        disclosed=data.draw(st.none() | st.sets(st.integers(1, 60))),
    )
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(data.draw(st.integers(0, 3))):
        at, bit = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 5))
        if text[at] != ".":
            text = text[:at] + alphabet[alphabet.index(text[at]) ^ 1 << bit] + text[at + 1 :]
    reading = read(SignalKind.TCF, text)
    check(reading)
    for vendor in (1, 9, 10, 50, 60, 61):
        bases = reading.answer(f"tcf.vendor.{vendor}"), reading.answer(f"tcf.vendor_li.{vendor}")
        for purpose in (1, 2, 3, 7, 11):
            consent = bases[0] and reading.answer(f"tcf.purpose.{purpose}")
            interest = bases[1] and reading.answer(f"tcf.li.{purpose}")
            for basis in ("vendor", "vendor_li"):
                assert not reading.answer(f"tcf.{basis}.{vendor}.purpose.{purpose}") or consent or interest


@given(st.lists(ANSWERED, max_size=4), st.sampled_from(("a", "b", "c")))
def test_signals_together_are_as_strict_as_the_strictest(signals: list[list[tuple[str, bool]]], key: str) -> None:
    readings = [Reading(SignalKind.SEGMENT, tuple(answers)) for answers in signals]
    said = [granted for answers in signals for name, granted in answers if name == key]
    assert combine(readings, key) == (all(said) if said else None)


@given(
    st.lists(st.sampled_from("ab"), max_size=3),
    st.lists(st.sampled_from("ab"), max_size=3),
    st.dictionaries(st.sampled_from("ab"), st.booleans()),
)
def test_one_more_signal_never_permits_what_was_denied(allowed: list[str], denied: list[str], preferences: dict[str, bool]) -> None:
    rudderstack = read(SignalKind.RUDDERSTACK, json.dumps({"allowedConsentIds": allowed, "deniedConsentIds": denied}))
    segment = read(SignalKind.SEGMENT, json.dumps({"categoryPreferences": preferences}))
    snowplow = read(SignalKind.SNOWPLOW_PREFERENCES, json.dumps({"eventType": "deny_all", "consentScopes": []}))
    unreadable = read(SignalKind.TCF, "nonsense")
    for key in "ab":
        together = combine([rudderstack, segment, unreadable], key)
        assert (together is False) == (key in denied or preferences.get(key) is False)
        assert together is not True or key in allowed or preferences.get(key) is True
        assert combine([rudderstack, segment, snowplow], key) is False


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SignalKind.TCF, tc_string(restrictions=[(1, 0, [(number, number) for number in range(1, 4_000)])])),
        (SignalKind.TCF, tc_string(restrictions=[(1, 1, [(755, 755)])] * 2_300)),
        (SignalKind.TCF, ".".join([tc_string(), *([text_of("111" + "0" * 21)] * 3_200)])),
        (SignalKind.GPP, "DP__" + "_" * 5_000 + "~" * 10_000),
        (SignalKind.SEGMENT, '{"categoryPreferences":{' + ",".join(f'"c{number}":true' for number in range(2_000)) + "}}"),
        (SignalKind.ONETRUST, "groups=" + "a:1," * 8_000),
        (SignalKind.COOKIEBOT, "{" + "a:'b'," * 5_000 + "}"),
        (SignalKind.COOKIEBOT, "{" + " " * 32_000 + "}"),
    ],
)
def test_the_dearest_signals_take_bounded_time(kind: SignalKind, text: str) -> None:
    """A hundred milliseconds of CPU where a usual one takes microseconds; what they should take stands in docs/benchmarks.md."""
    assert len(text) <= MAX_SIGNAL
    taken = []
    for _ in range(3):
        started = time.process_time()
        reading = read(kind, text)
        reading.answer("tcf.vendor.755.purpose.1")
        taken.append(time.process_time() - started)
    assert min(taken) < 0.1
