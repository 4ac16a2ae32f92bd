"""Tables of a warehouse in Postgres written anew, so that nothing is left in them of what was deleted.

Postgres keeps deleted rows until a vacuum, and their bytes in free space after it. ``VACUUM FULL`` makes new files of a table and of its
indexes and removes the old ones. It keeps what a transaction from before the deletion may still look at, so it waits for those to end.
Deliberately absent: the write-ahead log and its archive, backups, and replicas, which keep bytes for as long as they are set up to.
"""

from __future__ import annotations

import contextlib
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.postgresql.session import DEPENDENCY, Refused, Session, addresses
from cdi_warehouse_loader.warehouses.postgresql.sql import microseconds

# Rows are kept for whoever began before the erasure was committed and has not ended: for readers of this database, and for writers of any,
# since what is younger than the oldest of them does not count as past. Replicas tell theirs through a slot or their sender.
_STILL_LOOKING: Final = """exists (
        select from (
            select backend_xmin as id from pg_catalog.pg_stat_activity
            where (datid is null or datname = current_database()) and pid <> pg_backend_pid()
            union all select backend_xid from pg_catalog.pg_stat_activity where pid <> pg_backend_pid()
            union all select xmin from pg_catalog.pg_replication_slots
            union all select transaction from pg_catalog.pg_prepared_xacts
        ) others where age(others.id) >= age((select max(transaction_id)::xid from _cdi.unrewritten))
    )"""
_LOCK: Final = 1_777_183_548
_ONE_AT_A_TIME: Final = f"select pg_advisory_lock({_LOCK})"
_IS_REWRITING: Final = f"exists (select from pg_catalog.pg_locks where locktype = 'advisory' and classid = 0 and objid = {_LOCK})"
_OLDEST: Final = f"""select coalesce({microseconds("min(erased_at)")}, 0) from _cdi.unrewritten
    where not {_STILL_LOOKING} and not {_IS_REWRITING}"""
_UNREWRITTEN: Final = """select relation, max(transaction_id)::text, to_regclass(relation) is not null
    from _cdi.unrewritten group by relation order by relation"""
_DONE: Final = "delete from _cdi.unrewritten where relation = $1 and transaction_id <= $2::text::xid8"


def rewrite(options: Options) -> None:
    """Writes the tables from which people were erased anew; blocks. Killed in between, the next call goes on.

    Raises:
        Unavailable: it cannot now; some tables may be done.
    """
    session = Session(addresses(options.url)[0])
    try:
        session.rows(_ONE_AT_A_TIME)
        if session.rows(f"select {_STILL_LOOKING}") == [(True,)]:
            raise Unavailable(DEPENDENCY, "a transaction from before the erasure has not ended, for which Postgres keeps the rows")
        tables = session.rows(_UNREWRITTEN)
        for relation, newest, exists in tables:
            if exists:
                session.run(f"vacuum (full, analyze) {relation}")
            session.run(_DONE, relation, newest)
        if tables:
            with contextlib.suppress(Refused):
                # Most common values and bounds of histograms, as they were; only the owner of the database may.
                session.run("vacuum (full) pg_catalog.pg_statistic")
    except Refused as refused:
        raise Unavailable(DEPENDENCY, f"the tables cannot be written anew: {refused}") from None
    finally:
        session.close()


def oldest_us(session: Session) -> int:
    """When the first rows were erased that lie in the tables still, microseconds since 1970.

    0: there are none, or nobody could write them out now: who may still look at them has not ended, or another process is at it.
    """
    ((oldest,),) = session.rows(_OLDEST)
    return int(oldest)
