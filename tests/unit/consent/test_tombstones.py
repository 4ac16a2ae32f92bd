"""Tombstones: digests, the filter in front of them, and what two requests say of the same id."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from cdi_consent.domain.tombstones import Burial, Digester, Tombstone, TombstoneFilter, combined, covered


@given(st.binary(min_size=1, max_size=100), st.text(max_size=9), st.text(max_size=9), st.text(max_size=30))
def test_a_digest_is_as_documented(key: bytes, workspace: str, kind: str, value: str) -> None:
    text = f"{len(workspace)}:{workspace}{len(kind)}:{kind}{value}"
    assert Digester(key)((workspace, kind, value)) == hmac.digest(key, text.encode(), "sha256")


def test_no_two_ids_have_the_same_digest_because_of_where_they_are_cut() -> None:
    digest = Digester(b"k")
    assert len({digest(one) for one in [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), ("", "abc", "d")]}) == 4


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=50))
def test_the_filter_finds_all_that_were_added(digests: set[bytes]) -> None:
    made = TombstoneFilter()
    for one in digests:
        made.add(one)
    assert all(one in made for one in digests)


def test_the_filter_spares_most_of_the_others() -> None:
    made, digest = TombstoneFilter(), Digester(b"k")
    for number in range(100_000):
        made.add(digest(("w", "user_id", str(number))))
    wrong = sum(digest(("w", "user_id", f"x{number}")) in made for number in range(10_000))
    assert wrong < 50


def test_an_event_is_covered_by_any_of_its_ids() -> None:
    found = {b"a": Tombstone(100, False), b"b": Tombstone(None, True), b"c": Tombstone(None, False)}
    events = [(0, [b"a"], 100), (1, [b"a"], 101), (2, [b"b"], 999), (3, [b"c", b"x"], 0), (4, [b"x", b"a"], 5)]
    assert covered(events, found) == {0, 2, 4}


burials = st.lists(
    st.builds(
        Burial,
        st.just("w"),
        st.sampled_from([b"a", b"b"]),
        st.none() | st.integers(0, 3),
        st.none() | st.booleans(),
        st.integers(0, 10**6),
    ),
    unique_by=lambda burial: burial.create_us,
)


@given(burials, st.randoms(use_true_random=False))
def test_of_several_requests_the_last_word_counts_in_whatever_order_they_come(found: list[Burial], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = combined(found), combined(shuffled)
    assert [(each.digest, each.erased_before_us, each.suppressed) for each in one] == [
        (each.digest, each.erased_before_us, each.suppressed) for each in other
    ]
    for each in one:
        own = [burial for burial in found if burial.digest == each.digest]
        said = [burial for burial in own if burial.suppressed is not None]
        assert each.erased_before_us == max((one.erased_before_us for one in own if one.erased_before_us is not None), default=None)
        assert each.suppressed == (max(said, key=lambda burial: burial.create_us).suppressed if said else None)
