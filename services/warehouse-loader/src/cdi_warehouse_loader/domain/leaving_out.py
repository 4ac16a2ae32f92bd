"""What may not be loaded because it is of somebody who was erased since: streams and archives bring again what they hold.

Nothing is looked at that is later than the newest erasure, so the flow pays for this only while it is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2
from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_kernel.faults import reason_name
from cdi_privacy import digest_of
from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.instants import micros, microseconds
from cdi_warehouse_loader.domain.layout import GRAPH_TABLES
from cdi_warehouse_loader.domain.naming import snake
from cdi_warehouse_loader.domain.payload_values import bytes_values, payload_values
from cdi_warehouse_loader.domain.rows import Item

SUPPRESSED: Final = reason_name(error_pb2.ERROR_REASON_SUPPRESSED)
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_KINDS: Final = ("user_id", "anonymous_id")
_ANY_KIND: Final = (*_KINDS, "email")
"""Kinds of ids that a rejected event's payload is looked through for: nobody has read it, so nothing says what a text in it is."""

LookUp = Callable[[Sequence[bytes]], Mapping[bytes, Tombstone]]
"""Those of the digests that have a tombstone."""


def split_events(items: Sequence[Item], newest_us: int, look_up: LookUp) -> tuple[Sequence[Item], Sequence[Item]]:
    """Events to load, and events from before the erasure of their person; both in order.

    Args:
        items: the events.
        newest_us: when people were last erased; 0: never.
        look_up: gives tombstones.
    """
    if not newest_us:
        return items, ()
    received = microseconds([event.received_time for event, _, _ in items])
    old = {place: _event_digests(items[place]) for place, at in enumerate(received) if at <= newest_us}
    stones = look_up(sorted({digest for digests in old.values() for digest in digests})) if old else {}
    if not stones:
        return items, ()
    out = {place for place, digests in old.items() if _covers(stones, digests, received[place])}
    kept = [item for place, item in enumerate(items) if place not in out]
    return kept, [items[place] for place in sorted(out)]


def split_rejected(events: Iterable[RejectedEvent], newest_us: int, look_up: LookUp) -> tuple[list[RejectedEvent], list[RejectedEvent]]:
    """Rejected events to load, and those that name somebody who was erased after they were received; arguments as above."""
    everything = list(events)
    old = {
        place: [digest_of(event.workspace_id, kind, folded(kind, value)) for value in bytes_values(event.payload) for kind in _ANY_KIND]
        for place, event in enumerate(everything)
        if newest_us and (micros(event.received_time) or 0) <= newest_us
    }
    stones = look_up(sorted({digest for digests in old.values() for digest in digests})) if old else {}
    out = {place for place, digests in old.items() if _covers(stones, digests, micros(everything[place].received_time) or 0)}
    return [e for place, e in enumerate(everything) if place not in out], [everything[place] for place in sorted(out)]


def without_erased(changes: Sequence[GraphChanged], newest_us: int, look_up: LookUp) -> Sequence[GraphChanged]:
    """Changes of the graph without those of erased profiles and identifiers; arguments as above, one message each."""
    old = [change for change in changes if newest_us and (micros(change.change_time) or 0) <= newest_us]
    stones = look_up(sorted({digest for change in old for digest in _graph_digests(change)})) if old else {}
    return [_without(change, stones) for change in changes] if stones else changes


def rows_without_erased(table: str, rows: Any, newest_us: int, look_up: LookUp) -> Any:
    """Rows of a table of the graph, or of ``rejected_events``, as an Arrow record batch, without those of erased people."""
    if not newest_us:
        return rows
    is_graph = table in GRAPH_TABLES
    times = [at or 0 for at in rows.column("timestamp" if is_graph else "received_at").cast(pa.int64()).to_pylist()]
    digests_of = partial(_change_digests, table) if is_graph else _rejection_digests
    listed = enumerate(zip(times, rows.to_pylist(), strict=True))
    old = {place: (at, digests_of(row)) for place, (at, row) in listed if at <= newest_us}
    stones = look_up(sorted({digest for _, digests in old.values() for digest in digests})) if old else {}
    if not stones:
        return rows
    until = {digest: stone.erased_us if is_graph else stone.before_us for digest, stone in stones.items()}
    out = {place for place, (at, digests) in old.items() if any(at <= until.get(digest, -1) for digest in digests)}
    return rows.filter(pa.array([place not in out for place in range(rows.num_rows)], pa.bool_()))


def _without(change: GraphChanged, stones: Mapping[bytes, Tombstone]) -> GraphChanged:
    at, workspace_id = micros(change.change_time) or 0, change.workspace_id

    def gone(*ids: tuple[str, str]) -> bool:
        found = (stones.get(digest_of(workspace_id, kind, folded(kind, value))) for kind, value in ids)
        return any(stone is not None and at <= stone.erased_us for stone in found)

    left = GraphChanged(workspace_id=workspace_id, change_time=change.change_time)
    left.canonicals.extend(
        each for each in change.canonicals if not gone((PROFILE_ID, each.profile_id), (PROFILE_ID, each.canonical_profile_id))
    )
    left.mappings.extend(
        each for each in change.mappings if not gone((PROFILE_ID, each.profile_id), (each.identifier.type, each.identifier.value))
    )
    left.traits.extend(each for each in change.traits if not gone((PROFILE_ID, each.profile_id)))
    return left


def _event_digests(item: Item) -> list[bytes]:
    """All ids by which the event's row would be found and erased (``found_by``)."""
    event = item[0]
    identity = event_pb2.IdentityResult.FromString(event.identity)
    ids = [("user_id", event.user_id), ("anonymous_id", event.anonymous_id), (PROFILE_ID, identity.profile_id)]
    ids += [(kind, event.previous_id) for kind in _KINDS]
    context = _members(event.context).get("traits")
    for named in (_members(event.traits), _members(event.properties), _members(identity.traits), context):
        if isinstance(named, dict):
            ids += [(snake(name), folded(snake(name), value)) for name, value in named.items() if isinstance(value, str)]
    return [digest_of(event.workspace_id, kind, value) for kind, value in ids if value]


def _members(text: bytes) -> dict[str, Any]:
    try:
        return _decode_object(text) if text else {}
    except msgspec.DecodeError:
        return {}


def _graph_digests(change: GraphChanged) -> Iterable[bytes]:
    workspace_id = change.workspace_id
    for canonical in change.canonicals:
        yield digest_of(workspace_id, PROFILE_ID, canonical.profile_id)
        yield digest_of(workspace_id, PROFILE_ID, canonical.canonical_profile_id)
    for mapping in change.mappings:
        yield digest_of(workspace_id, PROFILE_ID, mapping.profile_id)
        kind = mapping.identifier.type
        yield digest_of(workspace_id, kind, folded(kind, mapping.identifier.value))
    for trait in change.traits:
        yield digest_of(workspace_id, PROFILE_ID, trait.profile_id)


def _change_digests(table: str, row: Mapping[str, Any]) -> list[bytes]:
    """All ids by which a row of the graph's tables would be found and erased."""
    named = ((found.kind or row["external_id_type"], row[found.column]) for found in found_by(table, GRAPH_TABLES[table], ()))
    return [digest_of(row["workspace_id"], kind, folded(kind, value)) for kind, value in named]


def _rejection_digests(row: Mapping[str, Any]) -> list[bytes]:
    values = payload_values(row["payload"], row["payload_encoding"]) if row["payload"] is not None else ()
    return [digest_of(row["workspace_id"], kind, folded(kind, value)) for value in values for kind in _ANY_KIND]


def _covers(stones: Mapping[bytes, Tombstone], digests: Iterable[bytes], received_us: int) -> bool:
    return any(stone is not None and received_us <= stone.before_us for stone in map(stones.get, digests))
