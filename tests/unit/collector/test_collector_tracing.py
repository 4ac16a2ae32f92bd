"""Which events of a request are traced."""

from cdi_collector.domain.limits import MAX_TRACED_EVENTS
from cdi_collector.tracing import Sampler

SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


def test_the_caller_decides() -> None:
    sampler = Sampler(1.0)
    assert list(sampler.pick(3, SAMPLED)) == [0, 1, 2]
    assert list(sampler.pick(3, UNSAMPLED)) == []
    assert len(sampler.pick(2_500, SAMPLED)) == MAX_TRACED_EVENTS


def test_the_ratio_decides_otherwise() -> None:
    assert list(Sampler(0.0).pick(1_000, "")) == []
    assert list(Sampler(1.0).pick(3, "")) == [0, 1, 2]
    sampler = Sampler(0.1)
    picked = [list(sampler.pick(size, "")) for size in (1, 7, 100) * 1_000]
    assert all(0 <= index < size for size, indexes in zip((1, 7, 100) * 1_000, picked, strict=True) for index in indexes)
    assert 9_500 < sum(map(len, picked)) < 12_100
