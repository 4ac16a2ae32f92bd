"""From events to the rows of every table of one schema, with the columns that must appear and the values that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2
from cdi_kernel.faults import Rejected
from cdi_warehouse_loader.domain import layout, naming
from cdi_warehouse_loader.domain.batch_columns import Part, Picks
from cdi_warehouse_loader.domain.columns import ARROW, SCHEMA_FROZEN, ColumnType
from cdi_warehouse_loader.domain.layout import Columns
from cdi_warehouse_loader.domain.load import Discard, TableLoad
from cdi_warehouse_loader.domain.planned_types import NO_RULES, ColumnRules
from cdi_warehouse_loader.domain.properties import TableColumns
from cdi_warehouse_loader.domain.rows import EventColumns, decode_object
from cdi_warehouse_loader.domain.shared_context import SharedContext

_FIXED_TABLE: Mapping[int, str] = {
    event_pb2.EVENT_TYPE_IDENTIFY: naming.IDENTIFIES,
    event_pb2.EVENT_TYPE_PAGE: naming.PAGES,
    event_pb2.EVENT_TYPE_SCREEN: naming.SCREENS,
    event_pb2.EVENT_TYPE_GROUP: naming.GROUPS,
    event_pb2.EVENT_TYPE_ALIAS: naming.ALIASES,
}
_NAMED = frozenset({event_pb2.EVENT_TYPE_TRACK, event_pb2.EVENT_TYPE_SELF_DESCRIBING})
_NAMES = {naming.PAGES: layout.VIEW_NAMES, naming.SCREENS: layout.VIEW_NAMES, naming.GROUPS: layout.GROUP_NAMES}


def plan_schema(
    schema: str, tables: Mapping[str, Columns], columns: EventColumns, rows: Sequence[int], rules: ColumnRules = NO_RULES
) -> Iterator[TableLoad]:
    """Plans the rows of one schema, one table after the other.

    Args:
        schema: the schema.
        tables: its tables and columns so far; the starting tables exist.
        columns: the batch.
        rows: which events of the batch are loaded here.
        rules: of new columns.

    Raises:
        Rejected: an event of an unknown type.
        msgspec.DecodeError: an event whose properties or traits are not a JSON object.
    """
    if rows:
        yield from _SchemaPlan(schema, tables, columns, rules).plan(rows)


class _SchemaPlan:
    def __init__(self, schema: str, tables: Mapping[str, Columns], columns: EventColumns, rules: ColumnRules) -> None:
        self._schema = schema
        self._rules = rules
        self._tables = tables
        self._columns = columns
        self._context = SharedContext(tables, columns.context, frozen=rules.frozen)
        self._discards: list[Discard] = []
        self._traits: dict[int, dict[str, Any]] = {}

    def plan(self, rows: Sequence[int]) -> Iterator[TableLoad]:
        tables, homeless = self._by_table(rows)
        # With the properties it is known in which order a table has its rows. All tables' rows, one table after the other, those of track
        # events first, are then picked from the batch at once.
        begun = [self._begin(table, members) for table, members in tables.items()]
        named = [row for built, members in begun if built.table not in layout.OWN_COLUMNS for row in members]
        fixed = [row for built, members in begun if built.table in layout.OWN_COLUMNS for row in members]
        tracks = [*named, *homeless]
        picks = Picks([*tracks, *fixed], len(self._columns.events))
        if tracks:
            yield self._load(self._table(naming.TRACKS), tracks, Part(picks, 0, len(tracks)))
        start = 0
        for built, members in begun:
            if start == len(named):
                start = len(tracks)  # past those that are in tracks only
            yield self._load(built, members, Part(picks, start, len(members)))
            start += len(members)
        yield from self._people(naming.USERS, tables.get(naming.IDENTIFIES, ()), "user_id")
        yield from self._people(naming.ACCOUNTS, tables.get(naming.GROUPS, ()), "group_id")
        yield from self._context.widenings(self._schema, {naming.TRACKS, *tables} if tracks else tables.keys())
        if self._discards:
            yield TableLoad(self._schema, naming.DISCARDS, discard_rows(self._discards))

    def _by_table(self, rows: Sequence[int]) -> tuple[dict[str, list[int]], list[int]]:
        """Rows by table, those of track events first, which are in ``tracks`` too; and those that are only there."""
        fixed: dict[str, list[int]] = {}
        named: dict[str, list[int]] = {}
        kinds, names = self._columns.kinds, self._columns.names
        for row in rows:
            kind = kinds[row]
            if kind in _NAMED:
                named.setdefault(names[row], []).append(row)
            elif kind in _FIXED_TABLE:
                fixed.setdefault(_FIXED_TABLE[kind], []).append(row)
            else:
                raise Rejected(error_pb2.ERROR_REASON_UNKNOWN_EVENT_TYPE, "the event's type is not known", metadata={"type": str(kind)})
        tables: dict[str, list[int]] = {}
        homeless: list[int] = []
        for name, members in named.items():
            table = naming.table_name(name)
            if self._rules.frozen and table not in self._tables:
                self._without_table(table, members)
                homeless += members
            else:
                tables.setdefault(table, []).extend(members)
        return tables | fixed, homeless

    def _without_table(self, table: str, rows: Sequence[int]) -> None:
        """Events whose table may not be made are in ``tracks``; their properties are kept as they came."""
        for row in rows:
            event = self._columns.events[row]
            kept = (event.message_id, table, "", event.properties.decode(), SCHEMA_FROZEN, self._columns.received_us[row])
            self._discards.append(kept)

    def _objects(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        events = self._columns.events
        if self._columns.kinds[rows[0]] not in (event_pb2.EVENT_TYPE_IDENTIFY, event_pb2.EVENT_TYPE_GROUP):
            return [decode_object(events[row].properties) for row in rows]
        traits = [decode_object(events[row].traits) for row in rows]
        self._traits |= dict(zip(rows, traits, strict=True))
        return traits

    def _begin(self, table: str, rows: Sequence[int]) -> tuple[TableColumns, list[int]]:
        """A table with the columns of its properties or traits, and its events in the order of its rows."""
        built = self._table(table)
        return built, built.add_objects(rows, self._objects(rows), _NAMES.get(table, layout.PROPERTY_NAMES))

    def _load(self, built: TableColumns, rows: Sequence[int], part: Part) -> TableLoad:
        """Rows of an event table, with the columns that all have."""
        built.add_picked(self._columns.shared, part)
        built.add_picked(self._columns.enriched, part)
        built.added |= {name: layout.ENRICHMENT_COLUMNS[name] for name in self._columns.enriched if name not in built.known}
        self._context.add_to(built, rows, part)
        self._add_own(built, rows, part)
        start = {} if built.table in self._tables else layout.TRACK_TABLE_COLUMNS
        oldest = min(map(self._columns.received_us.__getitem__, rows))
        return TableLoad(self._schema, built.table, built.batch(), {**start, **built.added}, built.widened, oldest_us=oldest or None)

    def _table(self, table: str) -> TableColumns:
        known = self._tables.get(table, layout.TRACK_TABLE_COLUMNS)
        return TableColumns(table, known, self._columns, self._discards, self._rules)

    def _add_own(self, built: TableColumns, rows: Sequence[int], part: Part) -> None:
        own = layout.OWN_COLUMNS.get(built.table)
        if own is None or built.table == naming.TRACKS:
            built.add_picked(self._columns.named, part)
            return
        events = self._columns.events
        for name in own:
            built.add(name, pa.array([getattr(events[row], name) or None for row in rows], pa.string()))

    def _people(self, table: str, rows: Sequence[int], key: str) -> list[TableLoad]:
        """One row per user or account with the newest value of every trait in this batch."""
        events, happened = self._columns.events, self._columns.happened_us
        latest: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        for row in sorted(rows, key=happened.__getitem__):
            who = getattr(events[row], key)
            if not who:
                continue
            traits = self._traits[row]
            before = latest.get((events[row].workspace_id, who))
            if before is not None:
                traits = before[1] | {name: value for name, value in traits.items() if value is not None}
            latest[events[row].workspace_id, who] = (row, traits)
        if not latest:
            return []
        built = self._table(table)
        order = built.add_objects([row for row, _ in latest.values()], [traits for _, traits in latest.values()], layout.PROPERTY_NAMES)
        built.add("id", pa.array([getattr(events[row], key) for row in order], pa.string()))
        shared = self._columns.shared
        built.add_picked({name: shared[name] for name in layout.STARTING_TABLES[table] if name != "id"}, Picks(order, len(events)))
        oldest = min(map(self._columns.received_us.__getitem__, order))
        return [TableLoad(self._schema, table, built.batch(), built.added, built.widened, ("workspace_id", "id"), oldest or None)]


def discard_rows(discards: Sequence[Discard]) -> Any:
    """Rows of ``discards``."""
    arrays = [pa.array(values, pa.string()) for values in list(zip(*discards, strict=True))[:5]]
    times = pa.array([discard[5] for discard in discards], pa.int64()).cast(ARROW[ColumnType.TIMESTAMP])
    return pa.RecordBatch.from_arrays([*arrays, times], list(layout.DISCARDS_COLUMNS))
