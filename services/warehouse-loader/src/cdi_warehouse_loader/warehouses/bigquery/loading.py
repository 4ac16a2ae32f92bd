"""One load: its rows come by a load job, its tables are changed, and one script moves everything on in a transaction.

A script with a transaction is one job, so it is done or not, whatever becomes of this process. BigQuery has snapshot isolation and takes
back whoever changes a table that another transaction changed meanwhile. Rows that are only added do not count as changed, so every load
begins with a change of one and the same row: loads and erasures take turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain.load import START, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.warehouses.bigquery import sql
from cdi_warehouse_loader.warehouses.bigquery.connection import DEPENDENCY, Connection, Refused
from cdi_warehouse_loader.warehouses.bigquery.sql import OWN, quoted, text
from cdi_warehouse_loader.warehouses.bigquery.staging import Staged

_TURNS: Final = 8
_WAIT_SECONDS: Final = 0.5
_TOO_MANY: Final = "the load touches more tables than a transaction of BigQuery may"


class Overtaken(Unavailable):
    """Another process has been there: what was planned does not hold any more."""

    def __init__(self) -> None:
        super().__init__(DEPENDENCY, "another process has loaded, erased or changed tables meanwhile", retry_after=0.1)


def in_turn(connection: Connection, script: str) -> None:
    """Runs a script with a transaction, again when another one came in between.

    Raises:
        Overtaken: what it was planned by does not hold any more.
        Unavailable: BigQuery cannot now, or refuses it: no value of a row stands in it, so that says nothing of the rows.
    """
    for turn in range(_TURNS):
        try:
            connection.run(script)
            return
        except Refused as refused:
            if sql.OVERTAKEN in refused.said:
                raise Overtaken from None
            if not refused.conflict:
                raise Unavailable(DEPENDENCY, str(refused), retry_after=1.0) from None
            time.sleep(random.uniform(0, _WAIT_SECONDS * 2**turn))
    raise Unavailable(DEPENDENCY, "other loads take all turns", retry_after=1.0)


def announcement(version: int, changes: Sequence[tuple[str, str, str, str, str]]) -> str:
    """Says in the history what is going to happen to tables; who planned by the tables as they were is overtaken from then on."""
    columns = {"number": "INT64", **dict.fromkeys(("schema_name", "table_name", "column_name", "change", "type"), "STRING")}
    rows = sql.values(columns, [(number, *change) for number, change in enumerate(changes)])
    return sql.transaction(
        [
            sql.take_turn(alters=True),
            sql.check(sql.version_is(version + 1)),
            f"""INSERT INTO `{OWN}`.`schema_changes` (`changed_at`, {", ".join(map(quoted, columns))})
                SELECT CURRENT_TIMESTAMP(), n.* FROM ({rows}) AS n""",
        ]
    )


def check_tables(tables: Sequence[TableLoad], clears: Sequence[tuple[str, str]]) -> None:
    """Whether one transaction can change these tables; asked before their rows are brought to BigQuery. Without rows it need not empty all.

    Raises:
        OutOfMemory: it cannot; a smaller load may fit.
    """
    written = {(table.schema, table.table) for table in tables if table.row_count}
    if written and len(written.union(clears)) > sql.MOST_TABLES:
        raise OutOfMemory(DEPENDENCY, _TOO_MANY)


def clear(cleared: Sequence[tuple[str, str]]) -> str:
    """Empties tables that ``clears`` has, unless another process was there, which may have loaded since."""
    places = ", ".join(text(".".join(place)) for place in cleared)
    among = f"FROM `{OWN}`.`clears` WHERE CONCAT(`schema_name`, '.', `table_name`) IN ({places})"
    check = sql.check(f"(SELECT COUNT(*) {among}) = {len(cleared)}")
    return sql.transaction([sql.take_turn(), check, *map(sql.clear, cleared), f"DELETE {among}"])


def commit(
    load: Load,
    tables: Sequence[tuple[TableLoad, Staged | None]],
    version: int,
    positions: Mapping[StreamPartition, Position],
    milliseconds: Callable[[], float],
) -> str:
    """The script that does a load. Of the tables that it empties, those that are too many are left to ``clear``.

    Args:
        load: the load.
        tables: without their rows, and where these are.
        version: of the tables, which has to be this one.
        positions: as believed.
        milliseconds: how long the load has taken so far.

    Raises:
        OutOfMemory: a transaction cannot do so much; a smaller load may fit.
    """
    clears, later = load.clears[: sql.MOST_TABLES], load.clears[sql.MOST_TABLES :]
    written = {(table.schema, table.table) for table, rows in tables if rows} | set(clears)
    statements = [sql.take_turn(alters=bool(later)), sql.check(sql.version_is(version + bool(later)))]
    if load.positions:
        statements += [sql.check(_stands_at(load.positions, positions)), _move(load.positions)]
    statements += [sql.clear(cleared) for cleared in clears]
    if later:
        statements.append(
            f"INSERT INTO `{OWN}`.`clears` (`schema_name`, `table_name`) "
            + sql.values({"schema_name": "STRING", "table_name": "STRING"}, later)
        )
    statements += [_merge(table, rows) if table.merge_keys else _append(table, rows) for table, rows in tables if rows]
    statements += _count(load.counts)
    rows, size = sum(table.row_count for table, _ in tables), sum(table.size for table, _ in tables)
    statements.append(
        f"INSERT INTO `{OWN}`.`loads` (`stream`, `started_at`, `milliseconds`, `events`, `row_count`, `byte_count`, `tables`) "
        f"VALUES ({text(load.stream)}, CURRENT_TIMESTAMP(), {milliseconds():.3f}, {load.events}, {rows}, {size}, {len(tables)})"
    )
    script = sql.transaction(statements)
    if len(written) > sql.MOST_TABLES or len(script) > sql.MOST_TEXT:
        raise OutOfMemory(DEPENDENCY, _TOO_MANY)
    return script


def _stands_at(wanted: Mapping[StreamPartition, Position], believed: Mapping[StreamPartition, Position]) -> str:
    """A condition: the partitions stand where they were believed to."""
    places = " OR ".join(f"(`stream` = {text(one.stream)} AND `partition` = {one.partition})" for one in wanted)
    exact = [
        f"(`stream` = {text(one.stream)} AND `partition` = {one.partition} "
        f"AND `sequence` = {believed[one].sequence} AND `source_sequence` = {believed[one].source_sequence})"
        for one in wanted
        if believed.get(one, START) != START
    ]
    progress = f"FROM `{OWN}`.`progress` WHERE"
    found = f"(SELECT COUNT(*) {progress} {' OR '.join(exact)}) = {len(exact)} AND " if exact else ""
    # A partition that nothing has been loaded of may have a row, too: who looks where the streams stand notes that.
    return f"{found}(SELECT COUNT(*) {progress} ({places}) AND (`sequence` <> 0 OR `source_sequence` <> 0)) = {len(exact)}"


def _move(positions: Mapping[StreamPartition, Position]) -> str:
    names = {"stream": "STRING", "partition": "INT64", "sequence": "INT64", "source_sequence": "INT64"}
    rows = sql.values(names, [(*where, *at) for where, at in positions.items()])
    return f"""MERGE `{OWN}`.`progress` AS held USING ({rows}) AS given
        ON held.`stream` = given.`stream` AND held.`partition` = given.`partition`
        WHEN MATCHED THEN UPDATE SET `sequence` = given.`sequence`, `source_sequence` = given.`source_sequence`
        WHEN NOT MATCHED THEN INSERT ({", ".join(map(quoted, names))})
            VALUES ({", ".join(f"given.{quoted(name)}" for name in names)})"""


def _count(counts: Mapping[CountKey, int]) -> Iterator[str]:
    """Appended, never updated: a warehouse has few loads in a day."""
    names = {"sink": "STRING", "outcome": "INT64", "reason": "STRING", "events": "INT64"}
    rows = [(key.sink, int(key.outcome), key.reason, events) for key, events in counts.items() if events]
    if rows:
        yield f"INSERT INTO `{OWN}`.`outcomes` ({', '.join(map(quoted, names))}) {sql.values(names, rows)}"


def _append(table: TableLoad, rows: Staged) -> str:
    return f"INSERT INTO {sql.place(table.schema, table.table)} ({', '.join(map(sql.column_of, rows.columns))}) {rows.source}"


def _merge(table: TableLoad, rows: Staged) -> str:
    """Rows by key: newer ones bring their values, older ones only fill what is empty."""
    on = " AND ".join(f"held.{quoted(key)} = given.{quoted(key)}" for key in table.merge_keys)
    names = [sql.column_of(name) for name in rows.columns]
    changes = ", ".join(
        f"{name} = IF(given.`timestamp` >= held.`timestamp`, COALESCE(given.{name}, held.{name}), COALESCE(held.{name}, given.{name}))"
        for name in (sql.column_of(column) for column in rows.columns if column not in table.merge_keys)
    )
    return f"""MERGE {sql.place(table.schema, table.table)} AS held USING ({rows.source}) AS given ON {on}
        WHEN MATCHED THEN UPDATE SET {changes}
        WHEN NOT MATCHED THEN INSERT ({", ".join(names)}) VALUES ({", ".join(f"given.{name}" for name in names)})"""
