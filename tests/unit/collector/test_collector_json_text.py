"""What is taken for JSON, how deep it may be, and what is repaired."""

import gzip
import json
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_collector.domain import json_text
from cdi_collector.domain.compression import decompressed
from cdi_kernel.faults import Fault, InvalidArgument, TooLarge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=40,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(VALUES)
def test_json_is_taken(value: object) -> None:
    assert json_text.check(json.dumps(value).encode()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "malformed_payload"),
        (b"{", "malformed_payload"),
        (b"nul", "malformed_payload"),
        (b'{"a":1} x', "malformed_payload"),
        (b'"\xff"', "invalid_encoding"),
        (b'"\xed\xa0\x80"', "invalid_encoding"),
        (b"1e999", "invalid_field"),
        (b"9" * 4_000, "invalid_field"),
        (b"[" * 2_000 + b"]" * 2_000, "nesting_too_deep"),
        (b'"\\ud800"', "malformed_payload"),
    ],
)
def test_what_is_not_has_a_reason(text: bytes, reason: str) -> None:
    fault = json_text.check(text)
    assert fault is not None
    assert fault.reason_name == reason


@given(VALUES, st.integers(1, 12))
def test_nesting_is_counted_exactly(value: object, limit: int) -> None:
    assert json_text.too_deep(json.dumps(value).encode(), limit) == (depth(value) > limit)


@given(VALUES, st.integers(1, 12))
def test_what_is_sound_is_json_within_the_levels(value: object, limit: int) -> None:
    text = json.dumps(value).encode()
    if json_text.is_sound(text, limit):
        assert depth(value) <= limit
    else:
        assert depth(value) >= limit
    assert not json_text.is_sound(text + b"}", limit)


def test_brackets_in_strings_are_no_nesting() -> None:
    assert not json_text.too_deep(json.dumps({"a": "[{" * 500 + '"\\'}).encode())


@given(st.lists(st.sampled_from(["\\ud83d", "\\ude00", "\\\\", "\\u0041", '\\"', "a", "ud800", "\\n"]), max_size=12))
def test_halves_of_surrogate_pairs_become_the_replacement_character(pieces: list[str]) -> None:
    text = ('"' + "".join(pieces) + '"').encode()
    repaired, fault = json_text.checked(text)
    assert fault is None
    python = json.loads(text)
    expected = python.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(repaired) == expected


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_merging_lets_the_inner_members_win(outer: dict[str, int], inner: dict[str, int]) -> None:
    merged = json_text.merged(json.dumps(outer).encode(), json.dumps(inner).encode())
    assert json.loads(merged) == outer | inner


@given(st.binary(max_size=2_000))
def test_gzip_round_trips(content: bytes) -> None:
    assert decompressed(gzip.compress(content), 4_000) == content
    assert decompressed(gzip.compress(content) + gzip.compress(content), 4_000) == content * 2


@given(st.binary(max_size=200))
def test_damaged_gzip_is_a_fault(content: bytes) -> None:
    with pytest.raises(Fault):
        decompressed(b"\x1f\x8b" + content, 1_000)


def test_cut_gzip_is_a_fault() -> None:
    with pytest.raises(InvalidArgument):
        decompressed(gzip.compress(b"x" * 1_000)[:-9], 4_000)


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(squeezer.compress(bytes(1024 * 1024)) for _ in range(300)) + squeezer.flush()
    with pytest.raises(TooLarge):
        decompressed(bomb, 500 * 1024)


# Halves that complete each other when they stand side by side, and whole objects.
HALVES = [
    b'{"a":[{}',
    b"{}]}",
    b"{},{}",
    b"{",
    b"}",
    b'{"a":"',
    b'{"}',
    b'","b":{"c":1}',
    b'"}',
    b"{}}",
    b"{{}",
    b' {"a":1}',
    b'{"a":1}\n',
    b"[]",
    b"1",
]
DEEP = [b'{"a":' * levels + b"{}" + b"}" * levels for levels in (62, 63, 64)]


@example(DEEP[-1:])
@example([b"{}", DEEP[-1]])
@given(st.lists(st.sampled_from([b"{}", b'{"a":{"b":[1,2]}}', b'{"a":"{,}"}', *HALVES, *DEEP]), max_size=5))
def test_texts_that_pass_together_pass_alone(texts: list[bytes]) -> None:
    alone = all(
        json_text.check(text) is None and text.startswith(b"{") and text == text.strip() and not json_text.too_deep(text) for text in texts
    )
    if json_text.are_plain_objects(texts):
        assert alone
    else:
        assert not alone or any(text in DEEP for text in texts)


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=5))
def test_objects_as_encoders_write_them_pass_together(values: list[object]) -> None:
    assert json_text.are_plain_objects([json.dumps(value).encode() for value in values])
