"""How much of DuckDB's memory rows take that are committed and not in the file yet.

They lie in memory, and in the write-ahead log, until it is folded in. Every table takes much more than its rows need as long as they are
few: a first piece for each of its columns, larger ones after them, and from the second load on a block that says which transaction brought
which rows. DuckDB cannot put these aside. With hundreds of tables they are what fills the memory, long before the log is long.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

_TABLE_BYTES: Final = (0, 140_000, 410_000, 700_000)
"""Of a table with some thirty columns, after so many loads; then it grows no more than its rows. Seen in ``duckdb_memory()``."""

_SHARE: Final = 0.75
"""Of DuckDB's memory that these rows may take. Folding in needs some, and without it nothing would be freed any more."""

Table = tuple[str, str]


class Room:
    """An estimate of that memory.

    Args:
        memory_bytes: what DuckDB may use.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._most = memory_bytes * _SHARE
        self._committed: Counter[Table] = Counter()
        self._touched: set[Table] = set()
        self._bytes = 0

    def begin(self) -> None:
        """A load begins; nothing is left of one that was taken back."""
        self._touched = set()
        self._bytes = sum(map(_taken, self._committed.values()))

    def takes(self, table: Table) -> bool:
        """Whether there is room for rows of one more table in the load."""
        if table not in self._touched:
            self._touched.add(table)
            loads = self._committed[table]
            self._bytes += _taken(loads + 1) - _taken(loads)
        return self._bytes <= self._most

    def commit(self) -> None:
        """The load is committed."""
        self._committed.update(self._touched)

    def is_short(self) -> bool:
        """Whether a load of the same tables would find no room."""
        return sum(_taken(loads + 1) for loads in self._committed.values()) > self._most

    def folded_in(self) -> None:
        """All rows are in the file."""
        self._committed.clear()


def _taken(loads: int) -> int:
    return _TABLE_BYTES[min(loads, len(_TABLE_BYTES) - 1)]
