"""The names of the topology."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_kernel import topology

TOKEN = re.compile(r"[A-Za-z0-9_-]+")


@given(st.text(), st.text())
def test_any_text_becomes_one_token_and_different_texts_different_tokens(first: str, second: str) -> None:
    assert TOKEN.fullmatch(topology.token(first))
    assert (topology.token(first) == topology.token(second)) == (first == second) or TOKEN.fullmatch(first) or TOKEN.fullmatch(second)


@given(st.text(), st.text(), st.integers(1, 64))
def test_a_partition_is_in_range_and_always_the_same(workspace: str, key: str, partitions: int) -> None:
    partition = topology.partition_of(workspace, key, partitions)
    assert 0 <= partition < partitions
    assert partition == topology.partition_of(workspace, key, partitions)


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        (topology.collected(3), "cdi.collected.*"),
        (topology.enriched(3), "cdi.enriched.*"),
        (topology.rejected("my shop.eu"), "cdi.rejected.*"),
        (topology.identity("merged"), "cdi.identity.*"),
        (topology.consent("main"), "cdi.consent.*"),
        (topology.privacy("erase"), "cdi.privacy.*"),
        (topology.dead("router"), "cdi.dead.*"),
    ],
)
def test_every_subject_belongs_to_its_stream(subject: str, stream: str) -> None:
    assert re.fullmatch(stream.replace(".", r"\.").replace("*", r"[^.]+"), subject)
    assert stream in {spec.subjects for spec in topology.STREAMS}


def test_a_partition_never_moves() -> None:
    """The order of a person hangs on it: a change of the hash would break every installation."""
    assert [topology.partition_of("main", key, 8) for key in ("anon-1", "user-1", "")] == [1, 3, 3]
