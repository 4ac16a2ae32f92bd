"""The events of a person, asked of the warehouse-loader's ``QueryRows``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cdi_identity.clients import warehouse_sql
from cdi_identity.clients.warehouse_query import MAX_ROWS, PEER, WarehouseQuery
from cdi_identity.clients.warehouse_sql import EventRows
from cdi_identity.domain.history import EventSearch, PastEvent
from cdi_kernel.faults import TooLarge, Unavailable

_CATALOG_SECONDS: Final = 5.0
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class _Schema:
    """What a schema of the warehouse has: the tables of track events, and the columns of every event."""

    tables: Sequence[str]
    columns: Sequence[str]


class NoWarehouse:
    """The ``EventHistory`` of a service that was not told where the warehouse is."""

    async def events(self, wanted: EventSearch, limit: int) -> Sequence[PastEvent]:
        """See ``EventHistory``."""
        raise Unavailable(PEER, "events are not available: CDI_WAREHOUSE_ADDRESS is not set")

    async def properties(self, workspace_id: str, events: Sequence[PastEvent]) -> Mapping[str, bytes]:
        """See ``EventHistory``."""
        raise Unavailable(PEER, "events are not available: CDI_WAREHOUSE_ADDRESS is not set")


class WarehouseHistory:
    """The ``EventHistory`` of one warehouse-loader."""

    def __init__(self, query: WarehouseQuery) -> None:
        self._ask = query.rows
        self._catalog: Mapping[str, _Schema] = {}
        self._catalog_at = -_CATALOG_SECONDS

    async def events(self, wanted: EventSearch, limit: int) -> Sequence[PastEvent]:
        """See ``EventHistory``. Looks into every schema: a workspace may have had others before."""
        catalog = await self._tables()
        if not catalog:
            return []
        try:
            rows = await self._ask(warehouse_sql.search_statement(wanted, sorted(catalog), limit), limit)
        except TooLarge as fault:
            raise Unavailable(PEER, f"the warehouse cannot tell the events of this person: {fault.message}") from fault
        return [_event(row) for row in rows]

    async def properties(self, workspace_id: str, events: Sequence[PastEvent]) -> Mapping[str, bytes]:
        """See ``EventHistory``. What is too much for one answer is asked for in halves."""
        tables = await self._rows_of(events)
        if not tables:
            return {}
        statement = warehouse_sql.properties_statement(workspace_id, tables)
        try:
            rows = await self._ask(statement, MAX_ROWS)
        except TooLarge as fault:
            if len(events) == 1:
                raise Unavailable(PEER, "the warehouse cannot tell the properties of an event") from fault
            middle = len(events) // 2
            first = await self.properties(workspace_id, events[:middle])
            return {**first, **await self.properties(workspace_id, events[middle:])}
        return dict(_properties(row[0].string_value) for row in rows)

    async def _rows_of(self, events: Sequence[PastEvent]) -> Sequence[EventRows]:
        """Where the rows of the events may be."""
        catalog = await self._tables()
        if any(not _tables_of(event, catalog) for event in events):
            catalog = await self._tables(0.0)  # an event of a new name
        found: dict[tuple[str, str], list[PastEvent]] = {}
        for event in events:
            for table in _tables_of(event, catalog):
                found.setdefault((event.schema, table), []).append(event)
        return [
            EventRows(
                schema,
                table,
                [column for column in catalog[schema].columns if column != "id"],
                [event.message_id for event in members],
                min(event.event_us for event in members),
                max(event.event_us for event in members),
            )
            for (schema, table), members in found.items()
        ]

    async def _tables(self, seconds: float = _CATALOG_SECONDS) -> Mapping[str, _Schema]:
        """What the warehouse has, as it was at most so many seconds ago."""
        if time.monotonic() - self._catalog_at >= seconds:
            rows = [tuple(value.string_value for value in row) for row in await self._ask(warehouse_sql.CATALOG, MAX_ROWS)]
            self._catalog = _catalog(rows)
            self._catalog_at = time.monotonic()
        return self._catalog


def _catalog(rows: Sequence[tuple[str, ...]]) -> Mapping[str, _Schema]:
    """Schemas that events are loaded into, of rows of schema, table and column."""
    columns: dict[str, list[str]] = {}
    tables: dict[str, list[str]] = {}
    for schema, table, column in rows:
        if table == warehouse_sql.TRACKS:
            columns.setdefault(schema, []).append(column)
        else:
            tables.setdefault(schema, []).append(table)
    return {schema: _Schema(tables.get(schema, []), names) for schema, names in columns.items()}


def _tables_of(event: PastEvent, catalog: Mapping[str, _Schema]) -> Sequence[str]:
    """The tables that may hold the properties of an event."""
    if event.type != warehouse_sql.TRACK:
        return [event.stem]
    schema = catalog.get(event.schema)
    return warehouse_sql.tables_of_track(event.stem, schema.tables) if schema is not None else []


def _event(row: Any) -> PastEvent:
    """An event, of a row of ``search_statement``. What is NULL is an empty text."""
    kind, message_id, name, source, moment, profile_id, user_id, anonymous_id, schema, stem = row
    return PastEvent(
        message_id=message_id.string_value,
        type=kind.string_value,
        name=name.string_value,
        source_id=source.string_value,
        event_us=int(moment.number_value),
        profile_id=profile_id.string_value,
        user_id=user_id.string_value,
        anonymous_id=anonymous_id.string_value,
        schema=schema.string_value,
        stem=stem.string_value,
    )


def _properties(text: str) -> tuple[str, bytes]:
    """Message id and properties, of a row of ``properties_statement``."""
    try:
        values = _OBJECT.decode(text.encode())
    except msgspec.DecodeError:
        # DuckDB writes a number that is none, such as Infinity, in a way that JSON does not have; it is left out.
        read = json.loads(text, parse_constant=lambda _: None)
        values = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in read.items() if value is not None}
    message_id = msgspec.json.decode(values.pop("id"), type=str)
    return message_id, msgspec.json.encode(values)
