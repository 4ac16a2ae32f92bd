"""Waiting until nothing of deleted rows is left in the files of ClickHouse.

A deletion writes the parts of a table that hold such rows anew; the old ones stay for a moment and are then removed by the server.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import OWN

_PATIENCE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.2

_UNFINISHED: Final = f"""select count() from system.mutations
    where not is_done and (database, table) in (select schema_name, table_name from {OWN}.unrewritten)"""
_OLD_PARTS: Final = f"""select database, table, name from system.parts
    where not active and (database, table) in (select schema_name, table_name from {OWN}.unrewritten)"""


def rewrite(options: Options) -> None:
    """Returns when the old parts are gone; other processes may go on loading.

    Raises:
        Unavailable: the server cannot now, or it keeps them for longer than two minutes.
    """
    with contextlib.closing(Connection(options)) as connection:
        ((newest,),) = connection.rows(f"select toUnixTimestamp64Micro(max(erased_at)) from {OWN}.unrewritten")
        until = time.monotonic() + _PATIENCE_SECONDS
        while connection.rows(_UNFINISHED) != [(0,)]:
            _wait(until)
        left = set(connection.rows(_OLD_PARTS))
        while left:
            _wait(until)
            left &= set(connection.rows(_OLD_PARTS))
        connection.run(f"alter table {OWN}.unrewritten delete where toUnixTimestamp64Micro(erased_at) <= %(newest)s", {"newest": newest})


def _wait(until: float) -> None:
    if time.monotonic() > until:
        raise Unavailable(DEPENDENCY, "ClickHouse keeps the old parts of tables; tried again later")
    time.sleep(_LOOK_SECONDS)
