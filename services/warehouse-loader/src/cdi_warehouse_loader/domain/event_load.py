"""One transaction of events: which go where, which are left out, which are turned away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2, outcome_pb2, rejected_event_pb2
from cdi_kernel.faults import Fault, reason_name
from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.documents import targets_of
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad, Target
from cdi_warehouse_loader.domain.plan import plan_schema
from cdi_warehouse_loader.domain.rows import EventColumns, Item, event_columns
from cdi_warehouse_loader.domain.side_rows import rejected_rows

STAGE: Final = "warehouse-loader"
CONSENT_DENIED: Final = reason_name(error_pb2.ERROR_REASON_CONSENT_DENIED)
_MAX_PAYLOAD_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Poisoned:
    """An event that cannot be loaded, and why."""

    item: Item
    fault: Fault


def plan_events(
    items: Sequence[Item],
    poisoned: Sequence[Poisoned],
    positions: Mapping[StreamPartition, Position],
    targets: Mapping[str, Sequence[Target]],
    now_us: int,
) -> Callable[[Catalog], Load]:
    """Plans a load as far as it does not depend on the catalog.

    Args:
        items: events to load.
        poisoned: events that are turned away instead.
        positions: where the partitions stand afterwards.
        targets: by workspace.
        now_us: time of the load.

    Returns:
        The rest of the plan, by catalog; it needs every schema of ``schemas_of``.
    """
    counts: Counter[CountKey] = Counter()
    columns = event_columns(items, now_us) if items else None
    rows = _rows_by_schema(columns, targets, counts) if columns is not None else {}
    turned_away = _turned_away(poisoned, targets, counts, now_us)

    def tables(catalog: Catalog) -> Iterator[TableLoad]:
        yield from turned_away
        if columns is not None:
            for schema, members in rows.items():
                yield from plan_schema(schema, catalog[schema], columns, members)

    return lambda catalog: Load(StreamName.ENRICHED, len(items) + len(poisoned), tables(catalog), positions, counts)


def schemas_of(workspaces: set[str], targets: Mapping[str, Sequence[Target]]) -> set[str]:
    """Schemas that events of these workspaces can reach."""
    return {target.schema for workspace in workspaces for target in targets_of(targets, workspace)}


def _rows_by_schema(
    columns: EventColumns, targets: Mapping[str, Sequence[Target]], counts: Counter[CountKey]
) -> Mapping[str, Sequence[int]]:
    """Which events are loaded into which schema; counts them, and those that consent leaves out."""
    members: dict[str, list[int]] = {}
    for row, event in enumerate(columns.events):
        members.setdefault(event.workspace_id, []).append(row)
    found: dict[str, list[int]] = {}
    for workspace, rows in members.items():
        for target in targets_of(targets, workspace):
            allowed = rows
            if target.purposes:
                allowed = [row for row in rows if target.purposes.issubset(columns.purposes[row])]
                counts[CountKey(target.sink, outcome_pb2.OUTCOME_FILTERED, CONSENT_DENIED)] += len(rows) - len(allowed)
            counts[CountKey(target.sink, outcome_pb2.OUTCOME_LOADED, "")] += len(allowed)
            if allowed:
                found.setdefault(target.schema, []).extend(allowed)
    return found


def _turned_away(
    poisoned: Sequence[Poisoned], targets: Mapping[str, Sequence[Target]], counts: Counter[CountKey], now_us: int
) -> list[TableLoad]:
    rows: dict[str, list[rejected_event_pb2.RejectedEvent]] = {}
    for one in poisoned:
        rejected = _rejected(one, now_us)
        for target in targets_of(targets, rejected.workspace_id):
            rows.setdefault(target.schema, []).append(rejected)
            counts[CountKey(target.sink, outcome_pb2.OUTCOME_REJECTED, one.fault.reason_name)] += 1
    return [TableLoad(schema, naming.REJECTED_EVENTS, rejected_rows(events, now_us)) for schema, events in rows.items()]


def _rejected(one: Poisoned, now_us: int) -> rejected_event_pb2.RejectedEvent:
    event, partition, event_seq = one.item
    payload = event.SerializeToString()
    rejected = rejected_event_pb2.RejectedEvent(
        rejection_id=f"{StreamName.ENRICHED}-{partition}-{event_seq}",
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
        payload_truncated=len(payload) > _MAX_PAYLOAD_BYTES,
    )
    rejected.rejected_time.FromMicroseconds(now_us)
    return rejected


def _type_name(kind: int) -> str:
    known = kind in event_pb2.EventType.values()
    return event_pb2.EventType.Name(event_pb2.EventType.ValueType(kind)).removeprefix("EVENT_TYPE_").lower() if known else str(kind)
