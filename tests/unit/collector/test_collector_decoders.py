"""Every decoder of the collector with made-up input, near to what SDKs send and far from it; ``make fuzz`` goes deeper."""

import gc
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.fuzz.decoders import DECODERS, seeds

SEEDS = seeds(Path(__file__).parents[2] / "golden" / "collector")
TOKENS = st.sampled_from(
    [
        b"null",
        b"{}",
        b"[]",
        b'""',
        b"0",
        b"-1",
        b"1e999",
        b"true",
        b'"\\ud800"',
        b'"\\u0000"',
        b"{" * 70,
        b"[" * 70 + b"]" * 70,
        b"\xff",
        b"9" * 30,
    ]
)


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """What an SDK sent, with a piece replaced."""
    original = draw(st.sampled_from(originals))
    start = draw(st.integers(0, len(original)))
    length = draw(st.integers(0, 40))
    piece = draw(TOKENS | st.binary(max_size=8))
    return original[:start] + piece + original[start + length :]


@pytest.mark.parametrize("name", DECODERS)
def test_only_faults_escape_and_what_is_taken_is_an_event(name: str) -> None:
    decode = DECODERS[name]
    for seed in SEEDS[name]:
        decode(seed)

    @settings(max_examples=60, deadline=None)
    @given(damaged(SEEDS[name]) | st.binary(max_size=64))
    def hold(text: bytes) -> None:
        decode(text)
        if name not in ("gzip", "grpc"):
            decode(gzip.compress(text, compresslevel=1))

    hold()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("batch", b'{"batch":[%s]}' % b",".join([b"5"] * 100)),
        ("cloudevents", b"[%s]" % b",".join([b"5"] * 100)),
        ("posthog", b"[%s]" % b",".join([b'{"event":5}'] * 100)),
        ("webhook", b"[[[]"),
    ],
)
def test_what_is_refused_is_not_kept_in_memory(name: str, body: bytes) -> None:
    decode = DECODERS[name]
    decode(body)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(20):
        decode(body)
    gc.collect()
    assert len(gc.get_objects()) < before + 20


def test_the_seeds_are_taken() -> None:
    """Otherwise nothing above would look at an event."""
    assert all(len(SEEDS[name]) > 0 for name in DECODERS)
    assert len(SEEDS["batch"]) > 10
