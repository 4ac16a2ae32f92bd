"""A warehouse in Snowflake: shared by all replicas of the loader."""

from cdi_warehouse_loader.warehouses.snowflake.rewriting import rewrite
from cdi_warehouse_loader.warehouses.snowflake.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
