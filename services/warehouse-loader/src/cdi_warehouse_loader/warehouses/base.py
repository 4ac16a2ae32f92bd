"""What every kind of warehouse offers beside ``ports.Warehouse``: being opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cdi_warehouse_loader.ports import Warehouse


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a warehouse.

    Attributes:
        path: file of an embedded warehouse.
        memory_limit: what the engine may use beside the process itself, for example ``48MB``.
        query_memory_limit: the part of it that a query may use.
        threads: of the engine, beside the caller's.
        checkpoint_threshold: size of the write-ahead log at which it is folded into the file.
    """

    path: Path
    memory_limit: str = "48MB"
    query_memory_limit: str = "32MB"
    threads: int = 1
    checkpoint_threshold: str = "64MB"


class Open(Protocol):
    """Opens a warehouse; blocks.

    Raises:
        Unavailable: it cannot be opened now, for example because another process holds it.
    """

    def __call__(self, options: Options) -> Warehouse: ...


class Rewrite(Protocol):
    """Writes a closed warehouse anew, without what was deleted from it; blocks.

    Raises:
        Unavailable: it cannot now; nothing was changed.
    """

    def __call__(self, options: Options) -> None: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A kind of warehouse."""

    open: Open
    rewrite: Rewrite


__all__ = ["Engine", "Open", "Options", "Rewrite", "Warehouse"]
