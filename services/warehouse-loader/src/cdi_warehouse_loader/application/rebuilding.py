"""Rebuilding: a warehouse, or one table of it, emptied and filled again from the archive while the flow goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from cdi.error.v1 import error_pb2
from cdi_kernel.clock import Clock
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, TooLarge, Unavailable
from cdi_kernel.topology import StreamName
from cdi_runtime.telemetry import logger
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.isolating import load_isolated
from cdi_warehouse_loader.application.seen import Seen
from cdi_warehouse_loader.domain import archive
from cdi_warehouse_loader.domain.event_load import Poisoned, plan_events
from cdi_warehouse_loader.domain.layout import SEQUENCE_FACTOR, filled_by_events, is_event_table
from cdi_warehouse_loader.domain.leaving_out import split_events
from cdi_warehouse_loader.domain.load import Load, Target, Targets
from cdi_warehouse_loader.domain.rebuild import Rebuild, begin, reached, rebuilds
from cdi_warehouse_loader.domain.rows import Item
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.ports import QueryLimits, Question, Warehouse

_LOOK_SECONDS: Final = 1.0
_EVENTS: Final = 4_000
"""About so many events in one load: the window of ``event_seq`` grows and shrinks with what is found, and with the memory for it."""

_MOST: Final = 5 * _EVENTS
_FIRST_WINDOW: Final = 64 * SEQUENCE_FACTOR
_NEVER: Final = 1 << 50
_ARCHIVE: Final = f"{archive.SCHEMA}.{archive.TABLE}"
_NO_ARCHIVE: Final = "the loader keeps no archive (CDI_ARCHIVE)"
_TOO_YOUNG: Final = "the archive begins later than these tables: what is older would be lost"
_SHARED: Final = "another workspace is loaded into the same tables, which would be emptied"
_LIMITS: Final = QueryLimits(_MOST, 128 * 1024 * 1024, 120.0)
_log = logger(__name__)


class _Held(NamedTuple):
    """What tables hold: the sequence of the oldest COLLECTED message, and rows of other workspaces."""

    oldest: int
    strangers: int


class Rebuilding:
    """Rebuilds the warehouses of a loader.

    Args:
        connections: the warehouses; the first that archives has the archive.
        clock: the time of a load.
    """

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._archive = next((connection for connection in connections if connection.access.archives), None)
        self._clock = clock

    async def start(self, workspace_id: str, warehouse: str, table: str) -> Rebuild:
        """Empties the tables and begins to fill them; durable when it returns.

        Args:
            workspace_id: the workspace.
            warehouse: name of its warehouse.
            table: the only table to rebuild; empty for all that events fill.

        Raises:
            FailedPrecondition: there is no archive, or it begins later than the tables; another workspace is loaded into the same tables;
                another rebuild of the connection is under way.
            InvalidArgument: events do not fill such a table.
            NotFound: there is no such warehouse.
            Unavailable: the warehouse is down.
        """
        if self._archive is None:
            raise FailedPrecondition(error_pb2.ERROR_REASON_NOT_FOUND, _NO_ARCHIVE, metadata={"resource": "archive"})
        connection, target = self._found(workspace_id, warehouse)
        held = await _held(connection.access, workspace_id, target.schema, table)
        if held.strangers:
            raise FailedPrecondition(error_pb2.ERROR_REASON_ALREADY_EXISTS, _SHARED, metadata={"resource": "schema", "name": target.schema})
        if held.oldest < await _oldest(self._archive.access, workspace_id):
            raise FailedPrecondition(error_pb2.ERROR_REASON_NOT_FOUND, _TOO_YOUNG, metadata={"resource": "archive"})
        return await connection.access.write(partial(self._begin, workspace_id, target, table))

    async def run(self, connection: Connection) -> None:
        """Does the rebuilds of a connection, and goes on with those that an earlier process began. Never returns."""
        await connection.access.held()
        while True:
            try:
                for rebuild in await connection.access.write(lambda held: rebuilds(held.positions)):
                    if not rebuild.done:
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

    def _begin(self, workspace_id: str, target: Target, table: str, held: Warehouse) -> Rebuild:
        held.ensure_tables(target.schema)
        tables = filled_by_events(held.catalog[target.schema])
        if table and table not in tables:
            raise InvalidArgument("events fill no such table", field_violations=[("table", "must be a table that events fill")])
        if any(not other.done for other in rebuilds(held.positions)):
            raise FailedPrecondition(error_pb2.ERROR_REASON_ALREADY_EXISTS, "a rebuild is under way", metadata={"resource": "rebuild"})
        rebuild = begin(held.positions, workspace_id, target.warehouse, table)
        clears = [(target.schema, name) for name in ([table] if table else tables)]
        held.load(Load(StreamName.ENRICHED, 0, (), rebuild.start(), {}, clears))
        _log.info("rebuild.begun", warehouse=target.warehouse, table=table, sequences=rebuild.last)
        return rebuild

    async def _rebuild(self, connection: Connection, rebuild: Rebuild) -> None:
        if self._archive is None:
            raise Unavailable("archive", _NO_ARCHIVE)
        source, access = self._archive.access, connection.access
        if not await source.write(lambda held: reached(held.positions, rebuild.bounds)):
            return  # the archive is behind this warehouse; the next look finds it further
        oldest = min(await _oldest(source, rebuild.workspace_id) * SEQUENCE_FACTOR, rebuild.end)
        start, window = max(rebuild.next, oldest), _FIRST_WINDOW
        while start < rebuild.end:
            try:
                items = await _read(source, rebuild, start, start + window)
                await self._load(access, rebuild, items, start + window)
            except (TooLarge, OutOfMemory):
                if window == 1:
                    raise
                window = max(1, window // 4)
                continue
            start += window
            rebuild = replace(rebuild, next=start)
            if len(items) < _EVENTS // 2:
                window *= 2
        await self._load(access, rebuild, (), max(start, rebuild.end), done=True)
        _log.info("rebuild.done", warehouse=rebuild.warehouse, table=rebuild.table)

    async def _load(self, access: Access, rebuild: Rebuild, items: Sequence[Item], following: int, *, done: bool = False) -> None:
        positions = rebuild.position(following, done=done)

        def new(held: Warehouse) -> tuple[Sequence[Item], Seen]:
            seen = Seen.of(held, positions)
            if rebuild.next != seen.positions[next(iter(positions))].sequence:
                raise Unavailable("warehouse", "another process goes on with this rebuild")
            return split_events(items, held.newest_erasure_us, held.tombstones)[0], seen

        def attempt(held: Warehouse, part: Sequence[Item], poisoned: Sequence[Poisoned], keep: bool) -> Load:
            targets = _only(access.targets, rebuild)
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


async def _oldest(source: Access, workspace_id: str) -> int:
    """The sequence of the oldest COLLECTED message of a workspace that the archive holds; above all others if it holds none."""
    if archive.TABLE not in await source.write(lambda held: held.catalog.get(archive.SCHEMA, {})):
        return _NEVER
    (row,) = await _ask(source, f"select min(event_seq) as oldest from {_ARCHIVE} where workspace_id = {_literal(workspace_id)}")
    return _NEVER if row["oldest"] is None else int(row["oldest"]) // SEQUENCE_FACTOR


async def _held(access: Access, workspace_id: str, schema: str, table: str) -> _Held:
    """What the tables of events that are to be rebuilt hold."""
    tables = await access.write(lambda held: held.catalog.get(schema, {}))
    oldest, strangers = _NEVER, 0
    for name, columns in tables.items():
        if table in ("", name) and is_event_table(name, columns):
            others = f"sum(case when workspace_id <> {_literal(workspace_id)} then 1 else 0 end)"
            (row,) = await _ask(access, f"select min(event_seq) as oldest, {others} as strangers from {schema}.{name}")
            oldest = oldest if row["oldest"] is None else min(oldest, int(row["oldest"]) // SEQUENCE_FACTOR)
            strangers += int(row["strangers"] or 0)
    return _Held(oldest, strangers)


async def _read(source: Access, rebuild: Rebuild, start: int, end: int) -> list[Item]:
    """The events from ``start`` to before ``end``, by ``event_seq``, that the stream does not bring."""
    within = f"event_seq >= {start} and event_seq < {end}"
    rows = await _ask(source, f"select * from {_ARCHIVE} where workspace_id = {_literal(rebuild.workspace_id)} and {within}")
    return list(filter(rebuild.covers, archive.items_of(rows)))


async def _ask(access: Access, sql: str) -> list[Mapping[str, Any]]:
    batches: list[Any] = []
    truncated = await access.read(lambda held: held.stream(Question(sql, _LIMITS), batches.append))
    if truncated:
        raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "too many events in one window", metadata={"limit": "rows"})
    return [row for batch in batches for row in batch.to_pylist()]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
