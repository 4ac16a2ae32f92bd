"""The embedded warehouse: one DuckDB file, held by one process."""

from cdi_warehouse_loader.warehouses.duckdb.file import rewrite
from cdi_warehouse_loader.warehouses.duckdb.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
