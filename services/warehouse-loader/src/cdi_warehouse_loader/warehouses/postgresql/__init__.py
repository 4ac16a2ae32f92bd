"""A warehouse in Postgres: shared by all replicas of the loader."""

from cdi_warehouse_loader.warehouses.postgresql.rewriting import rewrite
from cdi_warehouse_loader.warehouses.postgresql.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
