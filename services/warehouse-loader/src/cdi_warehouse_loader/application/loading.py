"""Loading: what a stream brings becomes rows, counts and a position in one transaction.

An event that breaks the load is found by bisecting with loads that are taken back, and becomes a row of ``rejected_events``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from opentelemetry.trace import SpanKind

from cdi.event.v1 import outcome_pb2, rejected_event_pb2
from cdi.identity.v1 import profile_pb2
from cdi_kernel.clock import Clock
from cdi_kernel.topology import StreamName
from cdi_runtime.telemetry import batch_span, event_span
from cdi_warehouse_loader import metrics
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.isolating import load_isolated
from cdi_warehouse_loader.application.plans import Plans
from cdi_warehouse_loader.application.purposes import PurposeRules
from cdi_warehouse_loader.application.seen import Seen
from cdi_warehouse_loader.application.standing import believed
from cdi_warehouse_loader.domain import archive, naming
from cdi_warehouse_loader.domain.batches import Batch, fresh
from cdi_warehouse_loader.domain.event_load import Poisoned, plan_events, schemas_of
from cdi_warehouse_loader.domain.event_view import EventView
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads
from cdi_warehouse_loader.domain.layout import SEQUENCE_FACTOR
from cdi_warehouse_loader.domain.leaving_out import SUPPRESSED, split_events, split_rejected, without_erased
from cdi_warehouse_loader.domain.load import START, ColumnNeeds, CountKey, Load, Position, StreamPartition, TableLoad, Targets
from cdi_warehouse_loader.domain.load_size import LoadSize
from cdi_warehouse_loader.domain.parts import part_of, without_parts
from cdi_warehouse_loader.domain.rows import Item
from cdi_warehouse_loader.domain.side_rows import rejected_rows
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.ports import Warehouse


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What is new of some messages.

    Attributes:
        items: the events.
        suppressed: those of erased people.
        positions: where the partitions stand with them. Where other processes load, too, the positions of parts are among them, as they
            are: who has brought a part of a message has not moved its partition on, but this.
        seen: what showed that.
        watched: the partitions that this speaks of.
    """

    items: Sequence[Item]
    suppressed: Sequence[Item]
    positions: Mapping[StreamPartition, Position]
    seen: Seen
    watched: Sequence[StreamPartition]


class Loading:
    """Loads the three streams.

    Args:
        access: the warehouse.
        rules: what purposes say of it.
        plans: what tracking plans say of its columns.
        clock: the time of a load.
        size: is told what loads of events find.
    """

    def __init__(self, access: Access, rules: PurposeRules, plans: Plans, clock: Clock, size: LoadSize) -> None:
        self._access = access
        self._rules = rules
        self._plans = plans
        self._clock = clock
        self._size = size

    async def events(self, batches: Sequence[Batch[EventView]]) -> None:
        """Loads enriched events; when it returns, all of them are durable, filtered or turned away.

        A load that is too large for the warehouse's memory, as one that touches hundreds of tables, is done in halves, and a single message
        in parts.

        Raises:
            Unavailable: the warehouse cannot now, or nobody knows yet what purposes say of it; what was not acknowledged is left out when
                it comes again.
            Halt: nearly all events break the load.
        """
        workspaces = {event.workspace_id for batch in batches for event in batch.events}
        await self._rules.meet(workspaces)
        await self._plans.meet(workspaces)
        try:
            await self._events(batches)
        except OutOfMemory:
            self._size.was_too_large(sum(len(batch.events) for batch in batches))
            middle = len(batches) // 2
            if middle == 0:
                await self._load_part(batches[0])
            await self.events(batches[: max(middle, 1)])
            await self.events(batches[max(middle, 1) :])

    async def _load_part(self, batch: Batch[EventView]) -> None:
        """Loads as many of the first events of a message as the warehouse has memory for, and notes how far that was.

        Raises:
            OutOfMemory: it has not enough for one event.
        """
        new = await self._access.write(partial(_arrived, [batch]))
        size = len(new.items)
        while size > 1:
            size //= 2
            try:
                return await self._load_first(new, size, part_of(batch.partition))
            except OutOfMemory:
                continue
        raise OutOfMemory("warehouse", "the warehouse has not enough memory for a single event")

    async def _load_first(self, new: _Arrived, size: int, where: StreamPartition) -> None:
        items = new.items[:size]
        # With where the partition stands, so that another process that has brought all of the message is found.
        positions = {at: new.seen.positions.get(at, START) for at in new.watched} | {where: Position(items[-1][2], 0)}
        part = replace(new, items=items, suppressed=(), positions=positions)
        await load_isolated(items, lambda *tried: self._access.write(partial(self._attempt, part, *tried)))

    async def _events(self, batches: Sequence[Batch[EventView]]) -> None:
        started_ns, clock = time.time_ns(), time.perf_counter()
        new = await self._access.write(partial(_arrived, batches))
        if not new.positions:
            return
        items = new.items
        sampled = [(item[0].message_id, item[0].traceparent) for item in items if item[0].traceparent]
        with batch_span("load batch", SpanKind.CONSUMER, [parent for _, parent in sampled], {"cdi.events": len(items)}):
            done = await load_isolated(items, lambda *part: self._access.write(partial(self._attempt, new, *part)))
        for message_id, parent in sampled:
            event_span("load", parent, attributes={"cdi.message_id": message_id}, start_time_ns=started_ns).end()
        self._size.loaded(sum(1 for table in done.tables if table.row_count))
        metrics.loaded(done, self._clock.now_us(), time.perf_counter() - clock)

    async def rejected(self, batches: Sequence[Batch[rejected_event_pb2.RejectedEvent]]) -> None:
        """Loads rejected events, one row per rejection id.

        Raises:
            Unavailable: the warehouse cannot now; nothing was done.
        """
        await self._access.write(partial(self._load_rejected, batches))

    async def changes(self, batches: Sequence[Batch[profile_pb2.GraphChanged]]) -> None:
        """Loads changes of the identity graph, one row each.

        Raises:
            Unavailable: the warehouse cannot now, or nobody knows yet what purposes say of it; nothing was done.
        """
        await self._rules.meet({changed.workspace_id for batch in batches for changed in batch.events})
        await self._access.write(partial(self._load_changes, batches))

    def _attempt(self, new: _Arrived, items: Sequence[Item], poisoned: Sequence[Poisoned], keep: bool, held: Warehouse) -> Load:
        targets = self._access.targets
        workspaces = {item[0].workspace_id for item in items} | {one.item[0].workspace_id for one in poisoned}
        for schema in sorted(schemas_of(workspaces, targets)):
            held.ensure_tables(schema)
        load = plan_events(items, poisoned, new.positions, targets, self._clock.now_us())(held.catalog)
        load = replace(load, counts={**load.counts, **_suppressed(new.suppressed, targets)})
        if self._access.archives and items:
            held.ensure_tables(archive.SCHEMA)
            load = replace(load, tables=chain([archive.archive_load(items, held.catalog[archive.SCHEMA])], load.tables))
        new.seen.check(held, new.watched)
        return replace(load, tables=held.load(load, keep=keep))

    def _load_rejected(self, batches: Sequence[Batch[rejected_event_pb2.RejectedEvent]], held: Warehouse) -> None:
        new = fresh(StreamName.REJECTED, batches, held.positions)
        if not new.positions:
            return
        seen = Seen.of(held, new.positions)
        events = {event.rejection_id: event for batch in new.batches for event in batch.events}
        kept, erased = split_rejected(events.values(), held.newest_erasure_us, held.tombstones)
        loads: list[TableLoad] = []
        counts = {CountKey("rejected", outcome_pb2.OUTCOME_SUPPRESSED, SUPPRESSED): len(erased)}
        counted: set[str] = set()
        for schema, members in self._by_schema(kept).items():
            held.ensure_tables(schema)
            ids = [event.rejection_id for event in members]
            stored = held.existing(schema, naming.REJECTED_EVENTS, "rejection_id", ids)
            missing = [event for event in members if event.rejection_id not in stored]
            for event in missing:
                if event.rejection_id not in counted:
                    key = CountKey("rejected", outcome_pb2.OUTCOME_REJECTED, f"{event.stage}:{event.reason}")
                    counts[key] = counts.get(key, 0) + 1
            counted.update(ids)
            if missing:
                loads.append(TableLoad(schema, naming.REJECTED_EVENTS, rejected_rows(missing, self._clock.now_us())))
        seen.check(held, new.positions)
        held.load(Load(StreamName.REJECTED, len(events), loads, new.positions, counts))

    def _by_schema(self, events: Sequence[rejected_event_pb2.RejectedEvent]) -> dict[str, list[rejected_event_pb2.RejectedEvent]]:
        found: dict[str, list[rejected_event_pb2.RejectedEvent]] = {}
        for event in events:
            for target in self._access.targets.of(event.workspace_id):
                found.setdefault(target.schema, []).append(event)
        if self._access.archives:
            found[archive.SCHEMA] = list(events)
        return found

    def _load_changes(self, batches: Sequence[Batch[profile_pb2.GraphChanged]], held: Warehouse) -> None:
        new = fresh(StreamName.IDENTITY, batches, held.positions)
        if not new.positions:
            return
        seen = Seen.of(held, new.positions)
        told = [changed for batch in new.batches for changed in batch.events]
        sequences = [batch.sequence for batch in new.batches for _ in batch.events]
        messages = list(map(Numbered, sequences, without_erased(told, held.newest_erasure_us, held.tombstones)))
        found: dict[tuple[str, bool, ColumnNeeds], list[Numbered]] = {}
        for message in messages:
            for target in self._access.targets.of(message.changed.workspace_id):
                found.setdefault((target.schema, target.takes_everybody, target.columns), []).append(message)
        if self._access.archives:
            found[archive.SCHEMA, True, ()] = messages
        loads: list[TableLoad] = []
        for (schema, personal, columns), members in found.items():
            held.ensure_tables(schema)
            loads += graph_loads(schema, members, self._clock.now_us(), personal=personal, columns=columns)
        seen.check(held, new.positions)
        held.load(Load(StreamName.IDENTITY, len(messages), loads, new.positions, {}))


def _arrived(batches: Sequence[Batch[EventView]], held: Warehouse) -> _Arrived:
    new = fresh(StreamName.ENRICHED, batches, held.positions)
    parts = [part_of(where.partition) for where in new.positions]
    watched = [*new.positions, *parts]
    positions = new.positions if held.exclusive else {**new.positions, **believed(held, parts)}
    items = without_parts(_items(new.batches), held.positions)
    split = split_events(items, held.newest_erasure_us, held.tombstones)
    return _Arrived(*split, positions, Seen.of(held, watched), watched)


def _suppressed(items: Sequence[Item], targets: Targets) -> Mapping[CountKey, int]:
    counts: Counter[CountKey] = Counter()
    for event, _, _ in items:
        for target in targets.of(event.workspace_id):
            counts[CountKey(target.sink, outcome_pb2.OUTCOME_SUPPRESSED, SUPPRESSED)] += 1
    return counts


def _items(batches: Sequence[Batch[EventView]]) -> list[Item]:
    """Events with their place; ``event_seq`` follows the order in which the collector accepted them."""
    items: list[Item] = []
    for batch in batches:
        first = (batch.source_sequence or batch.sequence) * SEQUENCE_FACTOR
        items += [(event, batch.partition, first + index) for index, event in enumerate(batch.events)]
    return items
