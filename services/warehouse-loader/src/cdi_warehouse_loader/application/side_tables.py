"""Rebuilding the tables that events do not fill: those of the identity graph, and rejected events.

A change of the graph has its place in the stream (``seq``): what is not above the bound comes from the archive, what is above it from the
stream. A rejected event has its id, and the stream leaves out what the table has already. What the archive brings is loaded once the
warehouse's reader is past where the archive stood when it was read: by then each row is in the table or comes from nowhere else, also where
several processes load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import pyarrow as pa

from cdi_kernel.clock import Clock
from cdi_kernel.faults import Unavailable
from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection
from cdi_warehouse_loader.application.questions import instant, oldest, rows_of, tables_of, times
from cdi_warehouse_loader.application.standing import believed, standing, told
from cdi_warehouse_loader.application.windows import through_windows
from cdi_warehouse_loader.domain import archive, naming
from cdi_warehouse_loader.domain.graph_rows import tables_for, without_withheld
from cdi_warehouse_loader.domain.layout import GRAPH_SEQUENCE_FACTOR, GRAPH_TABLES, REJECTED_COLUMNS, Columns
from cdi_warehouse_loader.domain.leaving_out import rows_without_erased
from cdi_warehouse_loader.domain.load import START, Load, TableLoad, Target
from cdi_warehouse_loader.domain.rebuild import REJECTIONS_FROM, Part, Positions, Rebuild
from cdi_warehouse_loader.ports import Pending, Warehouse

_WAIT_SECONDS: Final = 0.2
_FIRST_CHANGES: Final = 64 * GRAPH_SEQUENCE_FACTOR
_FIRST_REJECTIONS_US: Final = 3_600_000_000


class SideTables:
    """Fills them for one rebuild.

    Args:
        source: has the archive.
        connection: the warehouse that is rebuilt.
        rebuild: which rebuild.
        pending: tells how far the warehouse's reader is.
        clock: the time of a load.
    """

    def __init__(self, source: Access, connection: Connection, rebuild: Rebuild, pending: Pending, clock: Clock) -> None:
        self._source = source
        self._access = connection.access
        self._reader = connection.reader
        self._rebuild = rebuild
        self._pending = pending
        self._clock = clock

    async def fill(self) -> None:
        """Brings what is missing, in the order of the windows; each window is one transaction with its position.

        Raises:
            Unavailable: one of the warehouses cannot now, or another process goes on with this rebuild.
        """
        if self._rebuild.changes:
            await self._fill_changes(self._rebuild.changes)
        if self._rebuild.rejections:
            await self._fill_rejections(self._rebuild.rejections)

    async def _fill_changes(self, part: Part) -> None:
        end = (part.bound + 1) * GRAPH_SEQUENCE_FACTOR
        tables = [table for table in GRAPH_TABLES if self._rebuild.table in ("", table)]
        firsts = [await oldest(self._source, archive.SCHEMA, table, "seq", self._rebuild.workspace_id) for table in tables]
        before = self._rebuild.changes_position(part.next)

        async def fill(start: int, following: int) -> int:
            nonlocal before
            within = f"seq >= {start} and seq < {min(following, end)}"
            answers = {table: await self._archived(table, within) for table in tables}
            after = self._rebuild.changes_position(following)
            await self._access.write(partial(self._load_changes, answers, before, after))
            before = after
            return sum(answer.num_rows for answer in answers.values())

        await through_windows(max(part.next, min(firsts)), end, _FIRST_CHANGES, fill)

    async def _fill_rejections(self, part: Part) -> None:
        if naming.REJECTED_EVENTS not in await tables_of(self._source, archive.SCHEMA):
            return
        first, last = await times(self._source, archive.SCHEMA, naming.REJECTED_EVENTS, "rejected_at", self._rebuild.workspace_id)
        before = self._rebuild.rejections_position(part.next)

        async def fill(start: int, following: int) -> int:
            nonlocal before
            within = f"rejected_at >= {instant(start)} and rejected_at < {instant(min(following, last + 1))}"
            answer = await self._archived(naming.REJECTED_EVENTS, within if start else "rejected_at is null")
            if answer.num_rows:
                await self._pass_archive()
            after = self._rebuild.rejections_position(following)
            await told(self._access, partial(self._load_rejections, answer, before, after))
            before = after
            return int(answer.num_rows)

        if not part.next:
            await fill(0, 1)
        await through_windows(max(part.next, first), last + 1, _FIRST_REJECTIONS_US, fill)

    async def _archived(self, table: str, within: str) -> Any:
        """Rows of the archive, as an Arrow table."""
        return await rows_of(self._source, archive.SCHEMA, table, self._rebuild.workspace_id, within)

    async def _pass_archive(self) -> None:
        """Returns when no rejected event that the archive has by now comes from the stream any more."""
        there = (await standing(self._source, [REJECTIONS_FROM]))[REJECTIONS_FROM]
        while True:
            if await self._pending.is_past(REJECTIONS_FROM, self._reader, there.sequence):
                return
            await asyncio.sleep(_WAIT_SECONDS)

    def _load_changes(self, answers: Mapping[str, Any], before: Positions, after: Positions, held: Warehouse) -> None:
        loads = []
        for target in self._begin_turn(before, held):
            found = {table: self._rows(table, GRAPH_TABLES[table], answers[table], held) for table in tables_for(target, answers)}
            loads += [TableLoad(target.schema, table, without_withheld(table, rows, target.columns)) for table, rows in found.items()]
        held.load(Load(StreamName.IDENTITY, 0, [load for load in loads if load.rows.num_rows], after, {}))

    def _load_rejections(self, answer: Any, before: Positions, after: Positions, held: Warehouse) -> None:
        loads = []
        for target in self._begin_turn(before, held):
            rows = self._rows(naming.REJECTED_EVENTS, REJECTED_COLUMNS, answer, held)
            ids = rows.column("rejection_id").to_pylist()
            stored = held.existing(target.schema, naming.REJECTED_EVENTS, "rejection_id", ids) if ids else set()
            missing = rows.filter(pa.array([rejection_id not in stored for rejection_id in ids], pa.bool_()))
            loads.append(TableLoad(target.schema, naming.REJECTED_EVENTS, missing))
        # With where the stream stands, so that what another process has loaded since this one looked is found.
        positions = {**after, **believed(held, [REJECTIONS_FROM])}
        held.load(Load(StreamName.REJECTED, 0, [load for load in loads if load.rows.num_rows], positions, {}))

    def _rows(self, table: str, columns: Columns, answer: Any, held: Warehouse) -> Any:
        rows = archive.rows_of(columns, answer, self._clock.now_us())
        return rows_without_erased(table, rows, held.newest_erasure_us, held.tombstones)

    def _begin_turn(self, before: Positions, held: Warehouse) -> list[Target]:
        """The target of the rebuild; none if the workspace's documents no longer have it.

        Raises:
            Unavailable: the rebuild does not stand where this process left it.
        """
        if any(held.positions.get(where, START) != at for where, at in before.items()):
            raise Unavailable("warehouse", "another process goes on with this rebuild")
        targets = self._access.targets.of(self._rebuild.workspace_id)
        return [target for target in targets if target.warehouse == self._rebuild.warehouse]
