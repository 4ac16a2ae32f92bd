"""Making one data file of many small ones, a few at a time, between loads.

Files of about one size and one day are joined as soon as there are enough of them, and what becomes of them joins others of its own size
later. So a row is written anew a handful of times, however many loads there are, and most files are large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pyiceberg.manifest import DataFile

from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Name
from cdi_warehouse_loader.warehouses.iceberg.files import copy, partition_of
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable

JOINED: Final = 16
"""Files of one size and day that become one, or fewer if these are as large as one file may become."""

LARGEST_ROWS: Final = 500_000
_LARGEST_BYTES: Final = 32 * 1024 * 1024
"""What one file becomes at most by being joined: it holds up the next load for some 2 µs per row."""

_SMALLEST_BYTES: Final = 64 * 1024


def compact(storage: Storage, tables: Mapping[Name, LakeTable], touched: Iterable[Name], draft: Draft) -> bool:
    """Joins some files of the table that needs it most, of those touched.

    Args:
        storage: where.
        tables: all tables.
        touched: those that have new files.
        draft: gets the new file.

    Returns:
        Whether there was something to do.
    """
    groups = ((name, group) for name in touched for group in ready(tables[name].files.values()))
    name, group = max(groups, key=lambda found: len(found[1]), default=(None, []))
    if name is None:
        return False
    table = draft.of(name, {})
    joined = copy(storage, table.place, table.schema, group)
    table.replace(group, [joined] if joined is not None else [])
    return True


def ready(files: Iterable[DataFile]) -> Iterator[list[DataFile]]:
    """Files that are to become one, the smallest ones first."""
    alike: dict[tuple[Any, ...], list[DataFile]] = {}
    for file in sorted(files, key=lambda file: file.file_size_in_bytes):
        alike.setdefault((partition_of(file), _size_class(file.file_size_in_bytes)), []).append(file)
    for members in alike.values():
        group: list[DataFile] = []
        rows, size = 0, 0
        for file in members:
            rows, size = rows + file.record_count, size + file.file_size_in_bytes
            if rows > LARGEST_ROWS or size > _LARGEST_BYTES:
                break
            group.append(file)
        is_full = len(group) < len(members)
        if len(group) >= JOINED or (is_full and len(group) > 1):
            yield group


def _size_class(size: int) -> int:
    """0 for the smallest, and one more for each sixteenfold."""
    return 0 if size < _SMALLEST_BYTES else ((size // _SMALLEST_BYTES).bit_length() - 1) // 4 + 1
