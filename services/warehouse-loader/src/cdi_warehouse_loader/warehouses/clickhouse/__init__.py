"""ClickHouse: a server, or in tests the engine inside of the process. Any number of loaders may share it."""

from cdi_warehouse_loader.warehouses.clickhouse.rewriting import rewrite
from cdi_warehouse_loader.warehouses.clickhouse.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
