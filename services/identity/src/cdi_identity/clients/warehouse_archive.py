"""The events of the warehouse for definitions of computed traits, asked of the warehouse-loader's ``QueryRows``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdi_identity.clients import archive_sql, warehouse_sql
from cdi_identity.clients.archive_sql import EventTable
from cdi_identity.clients.warehouse_query import MAX_ROWS, PEER, WarehouseQuery
from cdi_identity.domain import json_values
from cdi_identity.domain.computed_traits import ComputedTrait
from cdi_identity.domain.history import ANONYMOUS_ID, USER_ID
from cdi_identity.ports_computing import Contribution, CountedEvent
from cdi_kernel.faults import TooLarge, Unavailable

PAGE_ROWS: Final = 2_000
"""Events of one page: one transaction of the graph's database."""


class NoArchive:
    """The ``EventArchive`` of a service that was not told where the warehouse is."""

    def events(self, trait: ComputedTrait, since_us: int) -> AsyncIterator[Sequence[CountedEvent]]:
        """See ``EventArchive``."""
        raise Unavailable(PEER, "earlier events are not available: CDI_WAREHOUSE_ADDRESS is not set")


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """A row of the warehouse; see ``CountedEvent``."""

    workspace_id: str
    event_type: str
    name: str
    message_id: str
    time_us: int
    profile_id: str
    user_id: str
    anonymous_id: str
    values: Mapping[str, Any]

    def look(self, path: str) -> object:
        """See ``CountedEvent``."""
        return self.values.get(path, json_values.MISSING)

    def contribution(self, trait_id: int, value: str) -> Contribution | None:
        """See ``CountedEvent``. Rows of events that may not be linked to a person are not asked for."""
        return Contribution(trait_id, self.message_id, self.profile_id, self.user_id, self.anonymous_id, self.time_us, value)


class WarehouseArchive:
    """The ``EventArchive`` of one warehouse-loader.

    Every table is walked along day by day, so that one question reads one day however long the history is.
    """

    def __init__(self, query: WarehouseQuery) -> None:
        self._query = query

    async def events(self, trait: ComputedTrait, since_us: int) -> AsyncIterator[Sequence[CountedEvent]]:
        """See ``EventArchive``."""
        for table in await self._tables(trait):
            for start_us in await self._days(trait, table, since_us):
                async for page in self._day(trait, table, start_us):
                    yield page

    async def _tables(self, trait: ComputedTrait) -> Sequence[EventTable]:
        """Where events of the definition may be, in every schema: a workspace may have had others before."""
        catalog = await self._columns()
        found = []
        for schema, tables in catalog.items():
            own = tables[warehouse_sql.TRACKS].keys()
            for name in await self._names(trait, schema, tables):
                found.append(archive_sql.event_table(trait, schema, name, tables[name].keys(), own))
        return found

    async def _names(self, trait: ComputedTrait, schema: str, tables: Mapping[str, Mapping[str, None]]) -> Sequence[str]:
        """The tables of one schema. What only looks at what all events have needs no tables of single events."""
        if trait.event_type != warehouse_sql.TRACK:
            return [archive_sql.TABLES[trait.event_type]]
        if all(path.startswith("context.") for path in trait.paths):
            return [warehouse_sql.TRACKS]
        stems = [row[0].string_value for row in await self._query.rows(archive_sql.stems_statement(trait, schema))]
        own = [name for name, columns in tables.items() if "event_text" in columns and name != warehouse_sql.TRACKS]
        return list({table: None for stem in stems for table in warehouse_sql.tables_of_track(stem, own)})

    async def _columns(self) -> Mapping[str, Mapping[str, Mapping[str, None]]]:
        """Schema → table → columns, of the schemas that events are loaded into."""
        catalog: dict[str, dict[str, dict[str, None]]] = {}
        after = ("", "", "")
        while True:
            rows = [tuple(value.string_value for value in row) for row in await self._query.rows(archive_sql.columns_statement(after))]
            for schema, table, column in rows:
                catalog.setdefault(schema, {}).setdefault(table, {})[column] = None
            if len(rows) < MAX_ROWS:
                return {schema: tables for schema, tables in catalog.items() if warehouse_sql.TRACKS in tables}
            after = rows[-1]

    async def _days(self, trait: ComputedTrait, table: EventTable, since_us: int) -> Sequence[int]:
        """When the days of a table begin that have events; the first one may begin in its middle."""
        days: list[int] = []
        while True:
            statement = archive_sql.days_statement(trait, table, since_us if not days else days[-1] + archive_sql.DAY_US)
            rows = await self._query.rows(statement)
            days += [int(row[0].number_value) for row in rows]
            if len(rows) < MAX_ROWS:
                return [max(start_us, since_us) for start_us in days]

    async def _day(self, trait: ComputedTrait, table: EventTable, start_us: int) -> AsyncIterator[Sequence[CountedEvent]]:
        """The events of one day in pages. A page that is too large for an answer is asked for in a smaller one."""
        end_us = start_us - start_us % archive_sql.DAY_US + archive_sql.DAY_US
        after, limit = (start_us, ""), PAGE_ROWS
        while True:
            try:
                rows = await self._query.rows(archive_sql.page_statement(trait, table, after, end_us, limit), limit)
            except TooLarge as fault:
                if limit == 1:
                    raise Unavailable(PEER, "the warehouse cannot tell an event") from fault
                limit //= 2
                continue
            events = [_event(trait, table, row) for row in rows]
            if events:
                yield events
            if len(events) < limit:
                return
            after, limit = (events[-1].time_us, events[-1].message_id), PAGE_ROWS


def _event(trait: ComputedTrait, table: EventTable, row: Any) -> ArchivedEvent:
    """An event, of a row of ``page_statement``. What is NULL is an empty text."""
    message_id, moment, profile_id, user_id, anonymous_id, name, demoted, *values = row
    left_out = json.loads(demoted.string_value or "[]")
    return ArchivedEvent(
        trait.workspace_id,
        trait.event_type,
        name.string_value,
        message_id.string_value,
        int(moment.number_value),
        profile_id.string_value,
        "" if USER_ID in left_out else user_id.string_value,
        "" if ANONYMOUS_ID in left_out else anonymous_id.string_value,
        dict(_values(table, values)),
    )


def _values(table: EventTable, values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for (path, _), value in zip(table.columns, values, strict=True):
        if value.string_value and (decoded := json_values.decode(value.string_value.encode())) is not None:
            yield path, decoded
