"""Warehouses: one file per engine, and the registry of what exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdi_warehouse_loader.warehouses import duckdb, duckdb_file
from cdi_warehouse_loader.warehouses.base import Engine

REGISTRY: Final[Mapping[str, Engine]] = {"duckdb": Engine(duckdb.open_file, duckdb_file.rewrite_file)}
"""How to open each kind, and to write it anew. A new kind is one file and one line here."""
