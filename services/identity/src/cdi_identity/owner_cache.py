"""Profiles by the digests of what they are known by: a set-associative cache in flat arrays, as processors have them.

A digest belongs to one set of sixteen slots. Whoever was not asked for longest in a full set makes room. An entry takes 36 bytes, where a
dict of texts takes ten times as many, and a batch is found by a handful of array operations, without an object per entry for the garbage
collection to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

DIGEST_BYTES: Final = 16

_WAYS: Final = 16
_TURNS: Final = 1 << 32
_UUID_LENGTH: Final = 36
_GROUPS: Final = (slice(0, 8), slice(8, 12), slice(12, 16), slice(16, 20), slice(20, 32))

_Numbers: TypeAlias = npt.NDArray[np.uint64]
_Places: TypeAlias = npt.NDArray[np.intp]


class OwnerCache:
    """Profile ids by digests. The system gives its memory page by page, as entries come; the pages may be huge ones.

    Args:
        capacity: entries, at most. Digests are spread over the sets by chance: of as many as there are slots 90 % find room.
    """

    def __init__(self, capacity: int) -> None:
        sets = max(capacity // _WAYS, 1)
        self._sets = np.uint64(sets)
        # A digest in two halves, by set and way.
        self._low = np.zeros((sets, _WAYS), np.uint64)
        self._high = np.zeros((sets, _WAYS), np.uint64)
        self._owners = np.zeros((sets, _WAYS), "V16")
        self._asked = np.zeros((sets, _WAYS), np.uint32)
        # Of the batch: what a slot was last asked in. It begins anew after four thousand million; only ages are wrong then.
        self._turn = 0

    def find(self, digests: Sequence[bytes]) -> list[str | None]:
        """The profile id of each digest, where there is one."""
        if not digests:
            return []
        low, high = _halves(digests)
        sets = self._sets_of(low)
        ways = self._ways_of(sets, low)
        found = (self._low[sets, ways] == low) & (self._high[sets, ways] == high)
        hits = sets[found], ways[found]
        self._asked[hits] = self._next_turn()
        owners = iter(_texts(self._owners[hits]))
        return [next(owners) if hit else None for hit in found.tolist()]

    def keep(self, digests: Sequence[bytes], owners: Sequence[str]) -> None:
        """Remembers the profile id of each digest. Of several that would take the same slot one has it."""
        if not digests:
            return
        low, high = _halves(digests)
        sets = self._sets_of(low)
        ways = self._ways_of(sets, low)
        ways = np.where(self._low[sets, ways] == low, ways, self._asked[sets].argmin(axis=1))
        # One writer for a slot: else it could get the digest of one and the owner of another.
        _, only = np.unique(sets * _WAYS + ways, return_index=True)
        slots = sets[only], ways[only]
        self._low[slots], self._high[slots] = low[only], high[only]
        self._owners[slots] = np.frombuffer(bytes.fromhex("".join(owners).replace("-", "")), "V16")[only]
        self._asked[slots] = self._next_turn()

    def _sets_of(self, low: _Numbers) -> _Places:
        return (low % self._sets).astype(np.intp)

    def _ways_of(self, sets: _Places, low: _Numbers) -> _Places:
        """Where in its set a digest is, if it is there."""
        same: npt.NDArray[np.bool_] = self._low[sets] == low[:, None]
        ways: _Places = same.argmax(axis=1)
        return ways

    def _next_turn(self) -> int:
        self._turn = self._turn % (_TURNS - 1) + 1
        return self._turn


def _halves(digests: Sequence[bytes]) -> tuple[_Numbers, _Numbers]:
    halves = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def _texts(owners: npt.NDArray[np.void]) -> list[str]:
    """Ids as they are written."""
    digits = np.frombuffer(owners.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    texts = np.full((len(digits), _UUID_LENGTH), ord("-"), np.uint8)
    for hyphens, group in enumerate(_GROUPS):
        texts[:, group.start + hyphens : group.stop + hyphens] = digits[:, group]
    joined = texts.tobytes().decode()
    return [joined[begin : begin + _UUID_LENGTH] for begin in range(0, len(joined), _UUID_LENGTH)]
