"""Which replica a partition should go to: everywhere the same answer, in equal shares."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cdi_runtime.bus.membership import preferred

REPLICAS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@given(REPLICAS, st.integers(1, 64), st.randoms())
def test_shares_differ_by_one_at_most_and_order_does_not_matter(replicas: list[str], partitions: int, random: object) -> None:
    shares = Counter(preferred(replicas, partition) for partition in range(partitions))
    counts = [shares.get(replica, 0) for replica in replicas]
    assert max(counts) - min(counts) <= 1
    assert [preferred(list(reversed(replicas)), p) for p in range(partitions)] == [preferred(replicas, p) for p in range(partitions)]


def test_nobody_takes_a_partition_when_nobody_lives() -> None:
    assert preferred([], 0) is None
