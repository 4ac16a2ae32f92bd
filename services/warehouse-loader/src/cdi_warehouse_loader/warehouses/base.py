"""What every kind of warehouse offers beside ``ports.Warehouse``: being opened, and being written anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from cdi_warehouse_loader.ports import Warehouse


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a warehouse.

    Attributes:
        url: where it is; its scheme says the kind. It may hold a password, so it is never logged.
        memory_limit: what an engine in this process may use beside the process itself, for example ``48MB``.
        query_memory_limit: the part of it that a query may use.
        threads: of an engine in this process, beside the caller's.
        checkpoint_threshold: size of the write-ahead log at which it is folded into the file.
    """

    url: str
    memory_limit: str = "48MB"
    query_memory_limit: str = "32MB"
    threads: int = 1
    checkpoint_threshold: str = "64MB"

    @property
    def kind(self) -> str:
        """The kind of warehouse, as in the registry."""
        return urlsplit(self.url).scheme.partition("+")[0]

    @property
    def memory_bytes(self) -> int:
        """The memory limit in bytes."""
        number, unit = re.fullmatch(r"([\d.]+)([KMG])i?B", self.memory_limit).groups()  # type: ignore[union-attr]  # settings see to it
        return int(float(number) * {"K": 1_000, "M": 1_000_000, "G": 1_000_000_000}[unit])

    @property
    def path(self) -> Path:
        """The file of an embedded warehouse: ``duckdb:relative/path`` or ``duckdb:///absolute/path``."""
        return Path(unquote(urlsplit(self.url).path))


class Engine(Protocol):
    """A kind of warehouse. Both calls block."""

    @property
    def load_events(self) -> int:
        """Events that a load may hold which touches few tables, where so many wait and the settings do not say otherwise."""
        ...

    def open(self, options: Options) -> Warehouse:
        """Opens a warehouse, and makes what it needs for itself.

        Raises:
            Unavailable: it cannot be opened now, for example because another process holds it.
        """
        ...

    def rewrite(self, options: Options) -> None:
        """Writes a warehouse that this process does not have open anew, without what was deleted from it.

        Raises:
            Unavailable: it cannot now; nothing was changed.
        """
        ...


__all__ = ["Engine", "Options", "Warehouse"]
