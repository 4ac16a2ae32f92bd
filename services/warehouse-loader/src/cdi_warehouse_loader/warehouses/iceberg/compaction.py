"""Making one data file of many small ones, a few at a time, between loads.

Files of about one size and one day are joined as soon as there are enough of them, and what becomes of them joins others of its own size
later. So a row is written anew a handful of times, however many loads there are, and most files are large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pyiceberg.manifest import DataFile

from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Name
from cdi_warehouse_loader.warehouses.iceberg.files import copy
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable

JOINED: Final = 16
"""Files of one size and day that become one."""

_SMALLEST: Final = 64 * 1024
_LARGE: Final = 32 * 1024 * 1024
"""Bytes of a file that stays as it is."""


def compact(storage: Storage, tables: Mapping[Name, LakeTable], touched: Iterable[Name], draft: Draft) -> bool:
    """Joins the files of the table that needs it most, of those touched; at most one group of files.

    Args:
        storage: where.
        tables: all tables.
        touched: those that have new files.
        draft: gets the new file.

    Returns:
        Whether there was something to do.
    """
    groups = ((name, group) for name in touched for group in _groups(tables[name].files.values()))
    name, group = max(groups, key=lambda found: len(found[1]), default=(None, []))
    if name is None or len(group) < JOINED:
        return False
    table = draft.of(name, {})
    joined = copy(storage, table.place, table.schema, group)
    table.replace(group, [joined] if joined is not None else [])
    return True


def _groups(files: Iterable[DataFile]) -> Iterable[list[DataFile]]:
    groups: dict[tuple[Any, ...], list[DataFile]] = {}
    for file in files:
        if file.file_size_in_bytes < _LARGE:
            day = file.partition[0] if len(file.partition) else None
            groups.setdefault((day, _size_class(file.file_size_in_bytes)), []).append(file)
    return groups.values()


def _size_class(size: int) -> int:
    """0 for the smallest, and one more for each sixteenfold."""
    return 0 if size < _SMALLEST else ((size // _SMALLEST).bit_length() - 1) // 4 + 1
