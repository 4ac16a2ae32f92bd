"""One transaction of events: which go where, which are left out, which are turned away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2, outcome_pb2, rejected_event_pb2
from cdi_kernel.faults import Fault, reason_name
from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.event_view import EventView
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad, Targets
from cdi_warehouse_loader.domain.plan import plan_schema
from cdi_warehouse_loader.domain.planned_types import NONE_PLANNED, ColumnRules, PlannedTypes
from cdi_warehouse_loader.domain.rows import EventColumns, Item, Purposes, event_columns, granted_purposes
from cdi_warehouse_loader.domain.side_rows import rejected_rows
from cdi_warehouse_loader.domain.withholding import masked, withheld

STAGE: Final = "warehouse-loader"
CONSENT_DENIED: Final = reason_name(error_pb2.ERROR_REASON_CONSENT_DENIED)
_MAX_PAYLOAD_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Poisoned:
    """An event that cannot be loaded, and why."""

    item: Item
    fault: Fault

    @property
    def rejection_id(self) -> str:
        """Of its row of ``rejected_events``."""
        _, partition, event_seq = self.item
        return f"{StreamName.ENRICHED}-{partition}-{event_seq}"


@dataclass(frozen=True, slots=True)
class _Share:
    """The events of one schema that are planned together.

    Attributes:
        rows: their places in the batch.
        masked: by place, what stands for an event of which something is withheld here.
    """

    rows: list[int]
    masked: dict[int, EventView]


def plan_events(
    items: Sequence[Item],
    poisoned: Sequence[Poisoned],
    positions: Mapping[StreamPartition, Position],
    targets: Targets,
    now_us: int,
) -> Callable[[Catalog], Load]:
    """Plans a load as far as it does not depend on the catalog.

    Args:
        items: events to load.
        poisoned: events that are turned away instead.
        positions: where the partitions stand afterwards.
        targets: where events go.
        now_us: time of the load.

    Returns:
        The rest of the plan, by catalog; it needs every schema of ``schemas_of``.
    """
    counts: Counter[CountKey] = Counter()
    events = [item[0] for item in items]
    granted = granted_purposes(events)
    shares = _shares(events, granted, targets, counts)
    turned_away = _turned_away(poisoned, targets, counts, now_us)

    @cache
    def whole() -> EventColumns:
        return event_columns(items, granted, now_us)

    def columns_of(share: _Share) -> EventColumns:
        if not share.masked:
            return whole()
        return event_columns([(share.masked.get(row, item[0]), *item[1:]) for row, item in enumerate(items)], granted, now_us)

    def tables(catalog: Catalog) -> Iterator[TableLoad]:
        yield from turned_away
        planned = _planned({event.workspace_id for event in events}, targets) if targets.planned else NONE_PLANNED
        for (schema, unfrozen), share in sorted(shares.items(), key=itemgetter(0)):
            yield from plan_schema(schema, catalog[schema], columns_of(share), share.rows, ColumnRules(not unfrozen, planned))

    return lambda catalog: Load(StreamName.ENRICHED, len(items) + len(poisoned), tables(catalog), positions, counts)


def schemas_of(workspaces: set[str], targets: Targets) -> set[str]:
    """Schemas that events of these workspaces can reach."""
    return {target.schema for workspace in workspaces for target in targets.of(workspace)}


def _shares(
    events: Sequence[EventView], granted: Sequence[Purposes], targets: Targets, counts: Counter[CountKey]
) -> Mapping[tuple[str, bool], _Share]:
    """Which events are loaded into which schema, and what is withheld of them there; counts them, and those that consent leaves out.

    By schema, and whether the events may add to its tables: those that may not are planned first, with the tables as they are.
    """
    members: dict[str, list[int]] = {}
    for row, event in enumerate(events):
        members.setdefault(event.workspace_id, []).append(row)
    found: dict[tuple[str, bool], _Share] = {}
    for workspace, rows in members.items():
        for target in targets.of(workspace):
            allowed = rows
            if target.purposes:
                allowed = [row for row in rows if target.purposes.issubset(granted[row])]
                counts[CountKey(target.sink, outcome_pb2.OUTCOME_FILTERED, CONSENT_DENIED)] += len(rows) - len(allowed)
            counts[CountKey(target.sink, outcome_pb2.OUTCOME_LOADED, "")] += len(allowed)
            for unfrozen, part in _by_freedom(events, allowed, target.frozen_sources):
                share = found.setdefault((target.schema, unfrozen), _Share([], {}))
                share.rows.extend(part)
                share.masked.update(masked(events, granted, part, target.columns))
    return found


def _planned(workspaces: set[str], targets: Targets) -> PlannedTypes:
    """The types of new columns. Workspaces that share a schema share its columns; the first one's plan counts there."""
    found: dict[str, dict[str, ColumnType]] = {}
    for workspace in sorted(workspaces, reverse=True):
        for table, columns in targets.planned.get(workspace, {}).items():
            found.setdefault(table, {}).update(columns)
    return found


def _by_freedom(events: Sequence[EventView], rows: list[int], frozen_sources: frozenset[str]) -> Iterator[tuple[bool, list[int]]]:
    """Events that may add to the tables, and events that may not; nothing of what there is none of."""
    if frozen_sources:
        frozen = [row for row in rows if events[row].source_id in frozen_sources]
        if frozen:
            yield False, frozen
            rows = [row for row in rows if events[row].source_id not in frozen_sources]
    if rows:
        yield True, rows


def _turned_away(poisoned: Sequence[Poisoned], targets: Targets, counts: Counter[CountKey], now_us: int) -> list[TableLoad]:
    rows: dict[str, list[rejected_event_pb2.RejectedEvent]] = {}
    for one in poisoned:
        granted = _granted(one.item[0])
        for target in targets.of(one.item[0].workspace_id):
            is_whole = target.purposes.issubset(granted) and not withheld(target.columns, granted)
            rows.setdefault(target.schema, []).append(_rejected(one, now_us, with_payload=is_whole))
            counts[CountKey(target.sink, outcome_pb2.OUTCOME_REJECTED, one.fault.reason_name)] += 1
    return [TableLoad(schema, naming.REJECTED_EVENTS, rejected_rows(events, now_us)) for schema, events in rows.items()]


def _granted(event: EventView) -> Purposes:
    """The purposes granted for an event that may be broken anywhere; unknown consent is none."""
    try:
        return granted_purposes([event])[0]
    except DecodeError:
        return ()


def _rejected(one: Poisoned, now_us: int, *, with_payload: bool) -> rejected_event_pb2.RejectedEvent:
    event = one.item[0]
    payload = event.SerializeToString() if with_payload else b""
    rejected = rejected_event_pb2.RejectedEvent(
        rejection_id=one.rejection_id,
        workspace_id=event.workspace_id,
        source_id=event.source_id,
        message_id=event.message_id,
        type=_type_name(event.type),
        name=event.name,
        failure_type=rejected_event_pb2.FAILURE_TYPE_LOADER_FAILURE,
        reason=one.fault.reason_name,
        description=one.fault.message,
        stage=STAGE,
        received_time=Timestamp.FromString(event.received_time),
        payload=payload[:_MAX_PAYLOAD_BYTES],
        payload_truncated=not with_payload or len(payload) > _MAX_PAYLOAD_BYTES,
    )
    rejected.rejected_time.FromMicroseconds(now_us)
    return rejected


def _type_name(kind: int) -> str:
    known = kind in event_pb2.EventType.values()
    return event_pb2.EventType.Name(event_pb2.EventType.ValueType(kind)).removeprefix("EVENT_TYPE_").lower() if known else str(kind)
