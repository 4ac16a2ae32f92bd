"""What is left of erased people in BigQuery, and which part of it can be removed.

Rows that were deleted stay readable for the dataset's time travel (48 hours, the fewest that there are), and for seven days after that the
vendor can bring them back. Nothing makes that shorter. What can be removed is removed here: rows on their way of loads that died, which
may be of people who were erased since. Deliberately absent: copying tables to drop the old ones, which time travel keeps just as long.
"""

from __future__ import annotations

import contextlib
from typing import Final

from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.bigquery.connection import STAGING, Address, Connection, passing
from cdi_warehouse_loader.warehouses.bigquery.loading import in_turn
from cdi_warehouse_loader.warehouses.bigquery.sql import OWN, quoted, transaction

_NOTED: Final = f"SELECT MAX(UNIX_MICROS(`noted_at`)) AS noted FROM `{OWN}`.`unrewritten`"
_LEFT: Final = f"""SELECT `table_name` FROM {quoted(STAGING)}.INFORMATION_SCHEMA.TABLES
    WHERE `creation_time` <= (SELECT MAX(`noted_at`) FROM `{OWN}`.`unrewritten`)"""
_OLDEST: Final = f"SELECT COALESCE(MIN(UNIX_MICROS(`erased_at`)), 0) AS oldest FROM `{OWN}`.`unrewritten`"
_DONE: Final = f"DELETE FROM `{OWN}`.`unrewritten` WHERE UNIX_MICROS(`noted_at`) <= {{noted}}"


def rewrite(options: Options) -> None:
    """Removes what loads from before the newest erasure have left; other processes may go on loading.

    Raises:
        Unavailable: BigQuery cannot now.
    """
    address = Address.of(options.url)
    with contextlib.closing(Connection(address, address.credentials)) as connection:
        with passing():
            ((noted,),) = connection.rows(_NOTED)
            for (table,) in connection.rows(_LEFT):
                connection.drop_staged(table)
        if noted is not None:
            in_turn(connection, transaction([_DONE.format(noted=noted)]))


def oldest_us(connection: Connection) -> int:
    """When the first rows were erased since the last rewriting, microseconds since 1970; 0: there are none."""
    ((oldest,),) = connection.rows(_OLDEST)
    return int(oldest)
