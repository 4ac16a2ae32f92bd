"""A warehouse in Snowflake: shared by all replicas of the loader."""

from importlib.util import find_spec

if find_spec("adbc_driver_snowflake") is None:
    raise ModuleNotFoundError("Snowflake's driver is not here: pip install 'cdi-warehouse-loader[snowflake]'")

from cdi_warehouse_loader.warehouses.snowflake.rewriting import rewrite
from cdi_warehouse_loader.warehouses.snowflake.warehouse import open_warehouse

__all__ = ["open_warehouse", "rewrite"]
