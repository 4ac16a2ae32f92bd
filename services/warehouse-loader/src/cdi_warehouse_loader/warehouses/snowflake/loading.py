"""One transaction that loads.

Rows are files on the stage before it begins, and tables have their columns. Then it takes the catalog's lock, which all loads, erasures and
changes of tables take, compares what it was planned on, copies the files, and writes positions, counts and log. Snowflake takes a
transaction back that others wait for once it has not moved for five minutes, and runs the statements after it in another one. So the last
statement before the commit looks whether the lock is still held.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

from cdi_warehouse_loader.domain.load import START, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.warehouses.snowflake import sql, state
from cdi_warehouse_loader.warehouses.snowflake.altering import Overtaken
from cdi_warehouse_loader.warehouses.snowflake.session import File, Session
from cdi_warehouse_loader.warehouses.snowflake.staging import Staged
from cdi_warehouse_loader.warehouses.snowflake.state import State


class LoadTransaction:
    """The work of one load, inside a transaction.

    Args:
        session: in that transaction.
        before: the state that the load was planned on.
        folds: whether to leave one row per key of positions and counts.
    """

    def __init__(self, session: Session, before: State, *, folds: bool) -> None:
        self._session = session
        self._before = before
        self._folds = folds
        self._started = time.perf_counter()

    def do(self, load: Load, tables: Sequence[Staged]) -> None:
        """Everything of a load.

        Args:
            load: whose tables have been read.
            tables: these, on the stage.

        Raises:
            Overtaken: the state is not what it was.
            Refused: by Snowflake.
        """
        holder = uuid4().hex
        self._session.run(sql.hold(holder))
        self._check(load.positions)
        for place in load.clears:
            self._session.run(f"delete from {sql.place(*place)}")
        for table in tables:
            if table.file is not None:
                self._copy(table.load, table.file, table.columns)
        if self._folds:
            self._fold()
        self._append(load.positions, load.counts)
        self._log(load, [table.load for table in tables])
        if self._session.rows(sql.HOLDER) != [(holder,)]:
            raise Overtaken("waited so long that this load's transaction was taken back")

    def _check(self, positions: Mapping[StreamPartition, Position]) -> None:
        if self._session.rows(sql.VERSION) != [(self._before.version,)]:
            raise Overtaken("altered tables, or erased people")
        if not positions:
            return
        held = state.positions(self._session)
        if any(held.get(where, START) != self._before.positions.get(where, START) for where in positions):
            raise Overtaken("loaded the same partition")

    def _copy(self, table: TableLoad, file: File, columns: Sequence[str]) -> None:
        if not table.merge_keys:
            self._session.copy_in(sql.place(table.schema, table.table), file)
            return
        self._session.copy_in(sql.twin(table.schema, table.table), file)
        for statement in sql.merge(table.schema, table.table, table.merge_keys, columns):
            self._session.run(statement)

    def _append(self, positions: Mapping[StreamPartition, Position], counts: Mapping[CountKey, int]) -> None:
        if positions:
            self._session.run(sql.values(sql.PROGRESS, [(*where, *at) for where, at in positions.items()]))
        if outcomes := [(key.sink, int(key.outcome), key.reason, events) for key, events in counts.items() if events]:
            self._session.run(sql.values(sql.OUTCOMES, outcomes))

    def _fold(self) -> None:
        """Leaves one row per key of what loads have appended."""
        positions, counts = state.positions(self._session), state.counts(self._session)
        for statement in (f"delete from {sql.PROGRESS}", f"delete from {sql.OUTCOMES}", sql.FORGET_LOG):
            self._session.run(statement)
        self._append(positions, counts)

    def _log(self, load: Load, done: Sequence[TableLoad]) -> None:
        rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
        milliseconds = (time.perf_counter() - self._started) * 1_000
        self._session.run(
            f"insert into {sql.LOADS} select {sql.literal(load.stream)}, current_timestamp(), "
            f"{milliseconds:.3f}, {load.events}, {rows}, {size}, {len(done)}"
        )
