"""The lake: Iceberg tables of Parquet files, with a catalog in SQLite or Postgres."""

from cdi_warehouse_loader.warehouses.iceberg.rewriting import rewrite
from cdi_warehouse_loader.warehouses.iceberg.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
