"""BigQuery: any number of loaders may share a project. Tested against an emulator, never against the vendor."""

from cdi_warehouse_loader.warehouses.bigquery.rewriting import rewrite
from cdi_warehouse_loader.warehouses.bigquery.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
