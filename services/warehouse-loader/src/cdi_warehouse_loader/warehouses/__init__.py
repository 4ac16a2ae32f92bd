"""Warehouses: one package per engine, and the registry of what exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from cdi_warehouse_loader.domain.load_size import ENOUGH_EVENTS
from cdi_warehouse_loader.ports import Warehouse
from cdi_warehouse_loader.warehouses.base import Engine, Options

KINDS: Final = ("duckdb", "postgresql", "iceberg", "clickhouse", "snowflake", "bigquery")
"""What exists. A new kind is a package of its name, with ``open_warehouse`` and ``rewrite``, and a word here."""

_LOAD_EVENTS: Final = {"postgresql": 16_000}
"""Where larger loads cost less for each event, and the loader has room for them below 300 MB: DuckDB needs part of that for itself."""


@dataclass(frozen=True, slots=True)
class _Engine:
    """An ``Engine`` that is imported, with its driver, when it is used: a process pays for the drivers that it needs."""

    kind: str

    @property
    def load_events(self) -> int:
        """See ``Engine``."""
        return _LOAD_EVENTS.get(self.kind, ENOUGH_EVENTS)

    def open(self, options: Options) -> Warehouse:
        """See ``Engine``."""
        opened: Warehouse = import_module(f"{__name__}.{self.kind}").open_warehouse(options)
        return opened

    def rewrite(self, options: Options) -> None:
        """See ``Engine``."""
        import_module(f"{__name__}.{self.kind}").rewrite(options)


REGISTRY: Final[Mapping[str, Engine]] = {kind: _Engine(kind) for kind in KINDS}
"""How to open each kind, and to write it anew."""
