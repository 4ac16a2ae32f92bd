"""Rebuilding: a warehouse, or one table of it, emptied and filled again from the archive while the flow goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.clock import Clock
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, Unavailable
from cdi_kernel.topology import StreamName
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.isolating import load_isolated
from cdi_warehouse_loader.application.plans import Plans
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.questions import oldest, rows_of, span, tables_of
from cdi_warehouse_loader.application.seen import Seen
from cdi_warehouse_loader.application.side_tables import SideTables
from cdi_warehouse_loader.application.standing import believed, standing, told
from cdi_warehouse_loader.application.windows import through_windows
from cdi_warehouse_loader.domain import archive, naming
from cdi_warehouse_loader.domain.event_load import Poisoned, plan_events
from cdi_warehouse_loader.domain.layout import GRAPH_SEQUENCE_FACTOR, GRAPH_TABLES, SEQUENCE_FACTOR, is_event_table
from cdi_warehouse_loader.domain.leaving_out import split_events
from cdi_warehouse_loader.domain.load import START, Load, Target, Targets
from cdi_warehouse_loader.domain.rebuild import Positions, Rebuild, begin, emptied, flows, reached, rebuildable, rebuilds
from cdi_warehouse_loader.domain.rows import Item
from cdi_warehouse_loader.ports import Pending, Warehouse

_LOOK_SECONDS: Final = 1.0
_FIRST_WINDOW: Final = 64 * SEQUENCE_FACTOR
_NO_ARCHIVE: Final = "the loader keeps no archive (CDI_ARCHIVE)"
_TOO_YOUNG: Final = "the archive begins later than these tables: what is older would be lost"
_SHARED: Final = "another workspace is loaded into the same tables, which would be emptied"
_log = logger(__name__)


class Rebuilding:
    """Rebuilds the warehouses of a loader.

    Args:
        connections: the warehouses; the first that archives has the archive.
        pending: tells how far their readers are.
        partitions: of the installation.
        clock: the time of a load.
    """

    def __init__(self, connections: Connections, pending: Pending, partitions: int, clock: Clock) -> None:
        self._connections = connections
        self._pending = pending
        self._partitions = partitions
        self._archive = next((connection for connection in connections if connection.access.archives), None)
        self._clock = clock

    async def start(self, workspace_id: str, warehouse: str, table: str) -> Rebuild:
        """Empties the tables and begins to fill them; durable when it returns.

        Args:
            workspace_id: the workspace.
            warehouse: name of its warehouse.
            table: the only table to rebuild; empty for all.

        Raises:
            FailedPrecondition: there is no archive, or it begins later than the tables; another workspace is loaded into the same tables;
                another rebuild of the connection is under way.
            InvalidArgument: the archive fills no such table.
            NotFound: there is no such warehouse.
            Unavailable: the warehouse is down, or has not begun to load.
        """
        if self._archive is None:
            raise FailedPrecondition(error_pb2.ERROR_REASON_NOT_FOUND, _NO_ARCHIVE, metadata={"resource": "archive"})
        connection, target = self._found(workspace_id, warehouse)
        quiet = await self._quiet(self._archive, connection)
        await _check_keeps(self._archive.access, connection.access, workspace_id, target.schema, table)
        return await told(connection.access, partial(self._begin, workspace_id, target, table, quiet))

    async def run(self, connection: Connection, rules: PurposeRules, plans: Plans) -> None:
        """Does the rebuilds of a connection, and goes on with those that an earlier process began. Never returns.

        Args:
            connection: the connection.
            rules: what purposes say of it.
            plans: what tracking plans say of its columns.
        """
        await connection.access.held()
        while True:
            try:
                for rebuild in await connection.access.write(lambda held: rebuilds(held.positions)):
                    if not rebuild.done:
                        await rules.meet([rebuild.workspace_id])
                        await plans.meet([rebuild.workspace_id])
                        await self._rebuild(connection, rebuild)
            except Fault as fault:
                _log.warning("rebuild.waits", connection=connection.name, reason=fault.reason_name)
            await asyncio.sleep(_LOOK_SECONDS)

    def _found(self, workspace_id: str, name: str) -> tuple[Connection, Target]:
        for connection in self._connections:
            for target in connection.access.targets.of(workspace_id):
                if target.warehouse == name:
                    return connection, target
        where = {"resource": "warehouse", "name": name}
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "the workspace has no warehouse of this name", metadata=where)

    async def _quiet(self, source: Connection, connection: Connection) -> Positions:
        """Where the archive stands in partitions from which the warehouse never had anything and gets nothing any more up to there.

        A warehouse that is younger than the newest message of a quiet partition would have no bound there.

        Raises:
            Unavailable: it is about to get something from a partition that it never had anything from, so it has no bound yet.
        """
        flowing = flows(self._partitions)
        there = await standing(source.access, flowing)
        here = await standing(connection.access, flowing)
        unknown = {where: there[where] for where in flowing if here[where] == START != there[where]}
        for where, at in unknown.items():
            if not await self._pending.is_past(where, connection.reader, at.sequence):
                raise Unavailable("warehouse", "it has loaded nothing yet of a partition that the archive has; try again", retry_after=1.0)
        return unknown

    def _begin(self, workspace_id: str, target: Target, table: str, quiet: Positions, held: Warehouse) -> Rebuild:
        held.ensure_tables(target.schema)
        tables = rebuildable(held.catalog[target.schema])
        if table and table not in tables:
            raise InvalidArgument("the archive fills no such table", field_violations=[("table", "must be a table that the archive fills")])
        if any(not other.done for other in rebuilds(held.positions)):
            raise FailedPrecondition(error_pb2.ERROR_REASON_ALREADY_EXISTS, "a rebuild is under way", metadata={"resource": "rebuild"})
        known = {where: at for where, at in held.positions.items() if at != START}
        rebuild = begin({**quiet, **known}, workspace_id, target.warehouse, table)
        clears = [(target.schema, name) for name in emptied(tables) if table in ("", name)]
        # With where the streams stand, so that bounds of which another process has loaded more are found to be wrong.
        positions = {**believed(held, flows(self._partitions)), **rebuild.start()}
        held.load(Load(StreamName.ENRICHED, 0, (), positions, {}, clears))
        _log.info("rebuild.begun", warehouse=target.warehouse, table=table, sequences=rebuild.messages[1])
        return rebuild

    async def _rebuild(self, connection: Connection, rebuild: Rebuild) -> None:
        if self._archive is None:
            raise Unavailable("archive", _NO_ARCHIVE)
        source, access = self._archive.access, connection.access
        if not reached(await standing(source, flows(self._partitions)), rebuild):
            return  # the archive is behind this warehouse; the next look finds it further
        rebuild = await self._fill_events(source, access, rebuild)
        await SideTables(source, connection, rebuild, self._pending, self._clock).fill()
        await self._load(access, rebuild, (), max(rebuild.next, rebuild.end) + 1, done=True)
        _log.info("rebuild.done", warehouse=rebuild.warehouse, table=rebuild.table)

    async def _fill_events(self, source: Access, access: Access, rebuild: Rebuild) -> Rebuild:
        """Brings the events; the rebuild as it then is."""
        if not rebuild.bounds:
            return rebuild
        first = await oldest(source, archive.SCHEMA, archive.TABLE, "event_seq", rebuild.workspace_id)

        async def fill(start: int, following: int) -> int:
            nonlocal rebuild
            items = await _read(source, rebuild, start, following)
            await self._load(access, rebuild, items, following)
            rebuild = replace(rebuild, next=following)
            return len(items)

        await through_windows(max(rebuild.next, first), rebuild.end, _FIRST_WINDOW, fill)
        return rebuild

    async def _load(self, access: Access, rebuild: Rebuild, items: Sequence[Item], following: int, *, done: bool = False) -> None:
        positions = rebuild.position(following, done=done)

        def new(held: Warehouse) -> tuple[Sequence[Item], Seen]:
            seen = Seen.of(held, positions)
            if rebuild.next != seen.positions[next(iter(positions))].sequence:
                raise Unavailable("warehouse", "another process goes on with this rebuild")
            return split_events(items, held.newest_erasure_us, held.tombstones)[0], seen

        def attempt(held: Warehouse, part: Sequence[Item], poisoned: Sequence[Poisoned], keep: bool) -> Load:
            targets = _only(access.targets, rebuild)
            poisoned = _untold(held, targets.of(rebuild.workspace_id), poisoned)
            load = plan_events(part, poisoned, positions, targets, self._clock.now_us())(held.catalog)
            # What became of these events was counted when they were loaded first.
            tables = (table for table in load.tables if rebuild.table in ("", table.table))
            seen.check(held, positions)
            return replace(load, tables=held.load(replace(load, tables=tables, counts={}), keep=keep))

        kept, seen = await access.write(new)
        await load_isolated(kept, lambda *part: access.write(lambda held: attempt(held, *part)))


def _only(targets: Targets, rebuild: Rebuild) -> Targets:
    """The target of the rebuild alone."""
    named = [target for target in targets.of(rebuild.workspace_id) if target.warehouse == rebuild.warehouse]
    return replace(targets, named={rebuild.workspace_id: named}, others=())


def _untold(held: Warehouse, targets: Iterable[Target], poisoned: Sequence[Poisoned]) -> Sequence[Poisoned]:
    """Events that break the load and are no rejected events yet: that table is not emptied."""
    ids = [one.rejection_id for one in poisoned]
    stored = set().union(*(held.existing(target.schema, naming.REJECTED_EVENTS, "rejection_id", ids) for target in targets if ids))
    return [one for one in poisoned if one.rejection_id not in stored]


async def _check_keeps(source: Access, access: Access, workspace_id: str, schema: str, table: str) -> None:
    """Whether the archive has what the tables hold that would be emptied.

    Raises:
        FailedPrecondition: it begins later, or another workspace has rows in them.
    """
    tables = await tables_of(access, schema)
    rebuilt = [name for name in tables if table in ("", name)]
    events = {name: await span(access, schema, name, "event_seq", workspace_id) for name in rebuilt if is_event_table(name, tables[name])}
    graph = {name: await span(access, schema, name, "seq", workspace_id) for name in rebuilt if name in GRAPH_TABLES}
    if any(held.strangers for held in chain(events.values(), graph.values())):
        raise FailedPrecondition(error_pb2.ERROR_REASON_ALREADY_EXISTS, _SHARED, metadata={"resource": "schema", "name": schema})
    first = await oldest(source, archive.SCHEMA, archive.TABLE, "event_seq", workspace_id)
    is_kept = [held.oldest // SEQUENCE_FACTOR >= first // SEQUENCE_FACTOR for held in events.values()]
    for name, held in graph.items():
        first = await oldest(source, archive.SCHEMA, name, "seq", workspace_id)
        is_kept.append(held.oldest // GRAPH_SEQUENCE_FACTOR >= first // GRAPH_SEQUENCE_FACTOR)
    if not all(is_kept):
        raise FailedPrecondition(error_pb2.ERROR_REASON_NOT_FOUND, _TOO_YOUNG, metadata={"resource": "archive"})


async def _read(source: Access, rebuild: Rebuild, start: int, end: int) -> list[Item]:
    """The events from ``start`` to before ``end``, by ``event_seq``, that the stream does not bring."""
    within = f"event_seq >= {start} and event_seq < {end}"
    rows = await rows_of(source, archive.SCHEMA, archive.TABLE, rebuild.workspace_id, within)
    return list(filter(rebuild.covers, archive.items_of(rows.to_pylist())))
