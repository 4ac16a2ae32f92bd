"""The cache of owners against a dict that never forgets: what it answers is always right, and what was asked for lately is there."""

from hashlib import blake2b
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from cdi_identity.owner_cache import DIGEST_BYTES, OwnerCache

BATCHES = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 200), min_size=1, max_size=60)), max_size=30)


def digest(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=DIGEST_BYTES).digest()


def owner(number: int, version: int) -> str:
    return str(UUID(bytes=blake2b(f"{number} {version}".encode(), digest_size=16).digest()))


@given(st.integers(1, 300), BATCHES)
def test_it_answers_what_was_kept_last_or_nothing(capacity: int, batches: list[tuple[bool, list[int]]]) -> None:
    cache, kept = OwnerCache(capacity), dict[int, str]()
    for version, (keeping, numbers) in enumerate(batches):
        digests = [digest(number) for number in numbers]
        if keeping:
            owners = [owner(number, version) for number in numbers]
            cache.keep(digests, owners)
            kept |= dict(zip(numbers, owners, strict=True))
        for number, found in zip(numbers, cache.find(digests), strict=True):
            assert found is None or found == kept[number]


def test_a_digest_that_differs_in_one_bit_is_not_found() -> None:
    """Neither where the set is the same, nor where half of the digest is."""
    cache, known = OwnerCache(1), digest(1)
    cache.keep([known], [owner(1, 0)])
    near = [(int.from_bytes(known) ^ 1 << bit).to_bytes(DIGEST_BYTES) for bit in range(DIGEST_BYTES * 8)]
    assert cache.find([known, *near]) == [owner(1, 0)] + [None] * len(near)
    # One that shares the half by which a slot is found takes its place, and the other one is not found any more.
    cache.keep([near[0]], [owner(2, 0)])
    assert cache.find([known, near[0]]) == [None, owner(2, 0)]


def test_who_was_not_asked_for_longest_makes_room() -> None:
    """In one set of sixteen; the next one takes the place of the oldest one, which is not the one that came first."""
    cache = OwnerCache(16)
    for number in range(16):
        cache.keep([digest(number)], [owner(number, 0)])
    assert cache.find([digest(0)]) == [owner(0, 0)]
    cache.keep([digest(16)], [owner(16, 0)])
    assert cache.find([digest(number) for number in range(17)]) == [owner(0, 0), None, *(owner(number, 0) for number in range(2, 17))]


def test_a_batch_larger_than_the_cache_keeps_some_of_it() -> None:
    cache, numbers = OwnerCache(16), range(100)
    digests = [digest(number) for number in numbers]
    cache.keep(digests, [owner(number, 0) for number in numbers])
    found = cache.find(digests)
    assert 0 < sum(map(bool, found)) <= 16
    assert all(there is None or there == owner(number, 0) for number, there in zip(numbers, found, strict=True))


def test_ages_begin_anew_without_harm() -> None:
    cache = OwnerCache(16)
    cache._turn = (1 << 32) - 3
    for number in range(6):
        cache.keep([digest(number)], [owner(number, 0)])
    assert cache.find([digest(number) for number in range(6)]) == [owner(number, 0) for number in range(6)]


def test_nothing_asked_is_nothing_found() -> None:
    cache = OwnerCache(16)
    cache.keep([], [])
    assert cache.find([]) == []
    assert cache.find([digest(1)]) == [None]
