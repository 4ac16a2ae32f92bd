"""Claims: which occurrence of an event id counts."""

from hypothesis import given
from hypothesis import strategies as st

from cdi_enrichment.domain.claims import KEY_BYTES, Place, claim_key, is_duplicate, wanted_claims

KEYS = st.binary(min_size=1, max_size=1)


class MemoryStore:
    """Claims as the store promises them."""

    def __init__(self) -> None:
        self.held: dict[bytes, Place] = {}

    def claim(self, wanted: dict[bytes, Place]) -> dict[bytes, Place]:
        for key, place in wanted.items():
            self.held.setdefault(key, place)
        return {key: self.held[key] for key, place in wanted.items() if self.held[key] != place}


def first_ones(store: MemoryStore, events: list[tuple[bytes, Place]]) -> list[Place]:
    wanted = wanted_claims(events)
    foreign = store.claim(wanted)
    return [place for key, place in events if not is_duplicate(key, place, wanted, foreign)]


def test_a_key_depends_on_workspace_and_message_id_and_has_sixteen_bytes() -> None:
    keys = {claim_key("acme", "m-1"), claim_key("acme", "m-2"), claim_key("other", "m-1"), claim_key("acmem", "-1")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {KEY_BYTES}


def test_the_first_of_two_in_one_batch_counts() -> None:
    assert first_ones(MemoryStore(), [(b"a", Place(5, 0)), (b"a", Place(5, 1)), (b"a", Place(6, 0))]) == [Place(5, 0)]


def test_a_later_batch_is_a_duplicate_of_an_earlier_one() -> None:
    store = MemoryStore()
    assert first_ones(store, [(b"a", Place(5, 0))]) == [Place(5, 0)]
    assert first_ones(store, [(b"a", Place(7, 0)), (b"b", Place(7, 1))]) == [Place(7, 1)]


def test_a_message_that_comes_again_finds_its_own_claims() -> None:
    store = MemoryStore()
    events = [(b"a", Place(5, 0)), (b"b", Place(5, 1)), (b"a", Place(5, 2))]
    assert first_ones(store, events) == first_ones(store, events) == [Place(5, 0), Place(5, 1)]


def test_an_occurrence_that_was_processed_earlier_counts_even_if_it_stands_later_in_the_stream() -> None:
    store = MemoryStore()
    first_ones(store, [(b"a", Place(7, 3))])
    assert first_ones(store, [(b"a", Place(5, 0)), (b"a", Place(7, 3))]) == [Place(7, 3)]


@given(st.lists(st.lists(KEYS, min_size=1, max_size=8), min_size=1, max_size=8), st.data())
def test_every_key_passes_exactly_once_however_batches_are_cut_and_repeated(messages: list[list[bytes]], data: st.DataObject) -> None:
    stream = [[(key, Place(sequence, i)) for i, key in enumerate(keys)] for sequence, keys in enumerate(messages, start=1)]
    store, passed, start = MemoryStore(), set(), 0
    while start < len(stream):
        size = data.draw(st.integers(1, 4))
        batch = [event for message in stream[start : start + size] for event in message]
        passed |= set(first_ones(store, batch))
        # A crash before the acknowledgement repeats a part of the batch, differently cut.
        start += data.draw(st.integers(0, size)) if data.draw(st.booleans()) else size
    everything = {key for keys in messages for key in keys}
    places = {place: key for message in stream for key, place in message}
    assert sorted(places[place] for place in passed) == sorted(everything)
