"""Warehouses: one file per engine, and the registry of what exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdi_warehouse_loader.warehouses import duckdb
from cdi_warehouse_loader.warehouses.base import Open

REGISTRY: Final[Mapping[str, Open]] = {"duckdb": duckdb.open_file}
"""How to open each kind. A new kind is one file and one line here."""
