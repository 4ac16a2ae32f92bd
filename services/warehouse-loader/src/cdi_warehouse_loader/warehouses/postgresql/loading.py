"""One transaction that loads.

Several processes load at once. Each holds the catalog's lock as one of many, so that tables and tombstones are, until its end, what it saw
at its beginning, and the rows of its positions, so that nobody else writes the same partitions. Whoever alters a table, or erases, holds
the lock alone. A load learns only on its way that it has to alter something. It then takes the lock alone if nobody else loads; else it
takes everything back, and the next one begins alone: waiting in the middle, for others who may wait for it, would be a deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.load import START, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.warehouses.changes import changed, changes_of
from cdi_warehouse_loader.warehouses.postgresql import months, sql
from cdi_warehouse_loader.warehouses.postgresql.session import DEPENDENCY, LOCK_NOT_AVAILABLE, Refused, Session
from cdi_warehouse_loader.warehouses.postgresql.state import State


class Overtaken(Unavailable):
    """Another process has been there: what was planned does not hold any more."""

    def __init__(self, what: str) -> None:
        super().__init__(DEPENDENCY, f"another process has {what}", retry_after=0.1)


class NeedsToBeAlone(Unavailable):
    """Others are loading, and this load alters tables."""

    def __init__(self) -> None:
        super().__init__(DEPENDENCY, "other processes load while this load alters tables", retry_after=0.1)


class LoadTransaction:
    """The work of one load, inside a transaction.

    Args:
        session: in that transaction.
        before: the state that the load was planned on.
        alone: whether to begin with the catalog's lock to itself.
    """

    def __init__(self, session: Session, before: State, *, alone: bool) -> None:
        self._session = session
        self._before = before
        self._alone = alone
        self._altered = False
        self._months = set(before.months)

    def do(self, load: Load) -> Sequence[TableLoad]:
        """Everything of a load; the tables without their rows.

        Raises:
            Overtaken: the state is not what it was.
            NeedsToBeAlone: it has to begin again with the lock to itself.
            Refused: by the server.
        """
        started = time.perf_counter()
        self._session.run(sql.LOCK_ALONE if self._alone else sql.LOCK_SHARED)
        self._check(load.positions)
        self._clear(load.clears)
        done: list[TableLoad] = []
        for table in load.tables:
            self._load_table(table)
            done.append(table.done())
        self._write_positions(load.positions)
        self._write_history(load, done, started)
        self._write_counts(load.counts)  # last: rows that all processes update are locked until the commit
        return done

    def after(self, load: Load, done: Sequence[TableLoad]) -> State:
        """The state once this is committed."""
        return replace(
            self._before,
            version=self._before.version + self._altered,
            catalog=changed(self._before.catalog, done),
            months=frozenset(self._months),
            positions={**self._before.positions, **load.positions},
        )

    def _check(self, positions: Mapping[StreamPartition, Position]) -> None:
        if self._session.rows(sql.VERSION) != [(self._before.version,)]:
            raise Overtaken("altered tables, or erased people")
        if not positions:
            return
        believed = {where: self._before.positions.get(where, START) for where in positions}
        places = [list(column) for column in zip(*sorted(believed), strict=True)]
        if not self._before.positions.keys() >= positions.keys():
            self._session.run(sql.CLAIM, *places)
        held = {StreamPartition(stream, partition): Position(*at) for stream, partition, *at in self._session.rows(sql.HOLD, *places)}
        if held != believed:
            raise Overtaken("loaded the same partition")

    def _clear(self, tables: Sequence[tuple[str, str]]) -> None:
        if tables:
            self._be_alone()
            self._session.run(sql.empty(tables))

    def _load_table(self, load: TableLoad) -> None:
        known = self._before.catalog.get(load.schema, {}).get(load.table)
        if known is None:
            self._alter(*sql.create_table(load.schema, load.table, load.added))
        elif load.added:
            self._alter(sql.add_columns(load.schema, load.table, load.added))
        if load.widened:
            self._alter(sql.widen_columns(load.schema, load.table, load.widened))
        if load.rows is None or not load.rows.num_rows:
            return
        if load.table == naming.TRACKS:
            self._add_months(load, known or {})
        if load.merge_keys:
            self._merge(load, {**(known or {}), **load.added})
        else:
            self._session.copy_in(load.schema, load.table, load.rows)

    def _merge(self, load: TableLoad, columns: sql.Columns) -> None:
        names = load.rows.schema.names
        self._session.run(sql.stage(columns, names))
        self._session.copy_in("pg_temp", sql.STAGING, load.rows)
        self._session.run(sql.merge(load.schema, load.table, load.merge_keys, names))
        self._session.run(sql.UNSTAGE)

    def _add_months(self, load: TableLoad, known: sql.Columns) -> None:
        for month in sorted(months.months_in(load.rows, datetime.now(UTC))):
            if (load.schema, month) not in self._months:
                columns = [*known, *load.added]
                self._alter(*months.add_month(load.schema, self._before.schemas[load.schema].number, month, columns))
                self._months.add((load.schema, month))

    def _alter(self, *statements: str) -> None:
        self._be_alone()
        if not self._altered:
            self._session.run(sql.ALTERED)
            self._altered = True
        for statement in statements:
            self._session.run(statement)

    def _be_alone(self) -> None:
        if self._alone:
            return
        try:
            self._session.run(sql.LOCK_ALONE_NOW)
        except Refused as refused:
            if refused.state == LOCK_NOT_AVAILABLE:
                raise NeedsToBeAlone from None
            raise
        self._alone = True

    def _write_positions(self, positions: Mapping[StreamPartition, Position]) -> None:
        if positions:
            rows = [(*where, *at) for where, at in positions.items()]
            self._session.run(sql.WRITE_POSITIONS, *_turned(rows))

    def _write_history(self, load: Load, done: Sequence[TableLoad], started: float) -> None:
        rows, size = sum(table.row_count for table in done), sum(table.size for table in done)
        milliseconds = (time.perf_counter() - started) * 1_000
        self._session.run(sql.WRITE_LOG, load.stream, milliseconds, load.events, rows, size, len(done))
        if changes := list(changes_of(done, self._before.catalog)):
            self._session.run(sql.WRITE_CHANGES, *_turned([(*place, change.value, kind) for *place, change, kind in changes]))

    def _write_counts(self, counts: Mapping[CountKey, int]) -> None:
        if outcomes := [(key.sink, int(key.outcome), key.reason, events) for key, events in counts.items() if events]:
            self._session.run(sql.WRITE_COUNTS, *_turned(outcomes))


def _turned(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    """Rows as columns, for one statement with arrays."""
    return [list(column) for column in zip(*rows, strict=True)]
