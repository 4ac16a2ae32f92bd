"""The DuckDB file: how a new one is made, and how it is written anew, so that nothing is left in it of what was deleted.

DuckDB marks deleted rows; their values stay in the row groups, in freed blocks and in statistics. Only a copy is without them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

import duckdb

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.base import Options

_BLOCK_SIZE: Final = 65_536
"""Of a new file, bytes. The log is folded in by whole blocks, of which every table has some: a quarter of DuckDB's default makes that twice
as fast with hundreds of tables, and the file a quarter as large."""

_ROW_GROUP_ROWS: Final = 10_240
"""Of a row group, a twelfth of DuckDB's default. Each time that the log is folded in, new rows get row groups of their own, the last of
them not full; where up to four in a row fit into one less, DuckDB writes them anew, with all of their rows in memory. Four large ones of
``tracks`` are more than the loader gives it, so blocks spill, and those that are not 256 KiB to a file each: it took up to 3 s."""


def connected(options: Options) -> duckdb.DuckDBPyConnection:
    """A DuckDB that has no file yet. It spills beside the file, also what it replays when that is attached."""
    spilled = str(_spilled(options.path))
    return duckdb.connect(
        ":memory:",
        config={
            "threads": options.threads,
            "memory_limit": options.memory_limit,
            "default_block_size": _BLOCK_SIZE,
            "temp_directory": spilled,
        },
    )


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Opens a file, or makes it, under a name of the connection. Rows that come to an older file are in row groups of this size, too.

    Raises:
        duckdb.IOException: another process holds it, or it cannot be read.
    """
    connection.execute(f"attach '{_text(path)}' as {name} (row_group_size {_ROW_GROUP_ROWS})")


def rewrite(options: Options) -> None:
    """Replaces the file by a copy of what is in it. Nobody in this process may have it open; blocks.

    The old file stays locked until the new one has its name, so another process takes over the one or the other, whole. Killed in between,
    the old one is still there.

    Raises:
        Unavailable: another process has taken the file, or the disk is full; nothing was changed.
    """
    draft = _beside(options.path, ".new")
    connection = connected(options)
    try:
        connection.execute("set preserve_insertion_order = false")
        connection.execute(f"attach '{_text(options.path)}' as old (read_only)")
        if _log_of(options.path).exists():
            raise Unavailable("warehouse", "the write-ahead log is not folded in")
        _remove(draft)
        # A process that was killed leaves what it had spilled.
        shutil.rmtree(_spilled(options.path), ignore_errors=True)
        attach(connection, draft, "new")
        connection.execute("copy from database old to new")
        connection.execute("delete from new._cdi.unrewritten")
        connection.execute("checkpoint new")
        connection.execute("detach new")
        draft.replace(options.path)
        _sync(options.path.parent)
    except (duckdb.Error, OSError) as error:
        raise Unavailable("warehouse", f"the file cannot be written anew: {type(error).__name__}") from error
    finally:
        connection.close()


def _remove(draft: Path) -> None:
    for file in (draft, _log_of(draft)):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def _log_of(path: Path) -> Path:
    return _beside(path, ".wal")


def _spilled(path: Path) -> Path:
    return _beside(path, ".tmp")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _text(path: Path) -> str:
    return str(path).replace("'", "''")
