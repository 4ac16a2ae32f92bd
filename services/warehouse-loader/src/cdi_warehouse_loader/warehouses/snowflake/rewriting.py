"""Seeing to it that Snowflake keeps nothing of deleted rows.

A deletion writes the partitions of a table that hold such rows anew. The old ones stay for as long as the table remembers its past, and
then seven days more unless it is transient. The loader's tables are made transient and without a past, so nothing of them stays; here
follows what somebody may have changed. Deliberately absent: answers of earlier queries, which Snowflake keeps for a day, clones, shares and
replicas.
"""

from __future__ import annotations

import contextlib
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.addresses import addresses
from cdi_warehouse_loader.warehouses.snowflake.session import DEPENDENCY, Refused, Session

_NEWEST: Final = f"select coalesce(max(erased_at_us), 0) from {sql.UNREWRITTEN}"
_OLDEST: Final = f"select coalesce(min(erased_at_us), 0) from {sql.UNREWRITTEN}"
_REMEMBERING: Final = """select table_schema, table_name from information_schema.tables
    where table_type = 'BASE TABLE' and retention_time > 0"""
_LEFT: Final = f"""select table_name from information_schema.tables
    where upper(table_schema) = '{sql.upper(sql.OWN)}' and startswith(table_name, '{sql.TRIED}')"""


def rewrite(options: Options) -> None:
    """Takes their past from tables that remember one, and tables away that a process died over while it tried a load.

    Raises:
        Unavailable: it cannot now; some tables may be done.
    """
    with contextlib.closing(Session(addresses(options.url)[0])) as session:
        try:
            ((newest,),) = session.rows(_NEWEST)
            schemas = {sql.OWN, *(name for (name,) in session.rows(f"select schema_name from {sql.SCHEMAS}"))}
            for schema, table in session.rows(_REMEMBERING):
                if sql.lower(schema) in schemas:
                    session.run(f"alter table {sql.place(schema, table)} set {sql.NO_PAST}")
            for (table,) in session.rows(_LEFT):
                session.run(f"drop table if exists {sql.place(sql.OWN, table)}")
            with session.transaction():
                session.run(f"delete from {sql.UNREWRITTEN} where erased_at_us <= {newest}")
        except Refused as refused:
            raise Unavailable(DEPENDENCY, f"tables cannot be made to forget: {refused}") from None


def oldest_us(session: Session) -> int:
    """When the first rows were erased that may lie in the tables' past still, microseconds since 1970; 0: there are none."""
    ((oldest,),) = session.rows(_OLDEST)
    return int(oldest)
