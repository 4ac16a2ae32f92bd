"""What events have in common, column by column: ids, times, enrichments, context.

Values that repeat within a batch are read once per distinct value: enrichments, purposes and names reach the warehouse as Arrow
dictionaries, the context as ``contexts`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa

from cdi.event.v1 import event_pb2
from cdi_warehouse_loader.domain.batch_columns import BatchColumns, Coded, Each, coded, distinct
from cdi_warehouse_loader.domain.columns import ARROW, ColumnType, json_text
from cdi_warehouse_loader.domain.contexts import ContextPart, read_contexts
from cdi_warehouse_loader.domain.enrichment_columns import enrichment_columns
from cdi_warehouse_loader.domain.event_view import EventView
from cdi_warehouse_loader.domain.instants import microseconds
from cdi_warehouse_loader.domain.naming import snake
from cdi_warehouse_loader.domain.signal_columns import read_signals

Item = tuple[EventView, int, int]
"""An event, its partition, its ``event_seq``."""

Purposes = tuple[str, ...]

_TEXT: Final = ColumnType.TEXT
_TIME: Final = ColumnType.TIMESTAMP
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The events of a batch, on their side.

    Attributes:
        events: the events.
        kinds: the type of each.
        names: the name of each, or the schema that it names.
        received_us: when each was received.
        happened_us: when each happened, corrected.
        shared: the columns that every event table has.
        context: the contexts and signals, in parts; no column is in two of them.
        named: the columns ``event`` and ``event_text``.
        enriched: the enrichment columns for which an event of the batch has a value.
    """

    events: Sequence[EventView]
    kinds: Sequence[int]
    names: Sequence[str]
    received_us: list[int]
    happened_us: list[int]
    shared: BatchColumns
    context: Sequence[ContextPart]
    named: BatchColumns
    enriched: BatchColumns


def decode_object(text: bytes) -> dict[str, Any]:
    """A JSON object as the client sent it; no bytes are no members.

    Raises:
        msgspec.DecodeError: it is not a JSON object.
    """
    return _decode_object(text) if text else {}


def granted_purposes(events: Iterable[EventView]) -> list[Purposes]:
    """The purposes granted for each event."""
    wholes, place_of = distinct([event.consent for event in events])
    granted = [tuple(event_pb2.ConsentResult.FromString(whole).granted_purposes) for whole in wholes]
    return list(map(granted.__getitem__, place_of))


def event_columns(items: Sequence[Item], purposes: Sequence[Purposes], now_us: int) -> EventColumns:
    """Reads what all event tables need.

    Args:
        items: events with their place.
        purposes: the purposes granted for each.
        now_us: time of the load.
    """
    events = [item[0] for item in items]
    received = microseconds([event.received_time for event in events])
    happened = microseconds([event.event_time for event in events])
    names = [event.name or event.schema_uri for event in events]
    profile_ids, demoted, traits = _identities([event.identity for event in events])
    contexts = read_contexts([event.context for event in events], traits if any(traits) else [])
    loaded = Coded(pa.array([now_us], ARROW[_TIME]), [0] * len(events))
    shared: BatchColumns = {
        "id": Each([event.message_id for event in events], _TEXT),
        "workspace_id": coded([event.workspace_id for event in events], _none_if_empty),
        "source_id": coded([event.source_id for event in events], _none_if_empty),
        "user_id": _optional([event.user_id for event in events], "", _TEXT),
        "anonymous_id": _optional([event.anonymous_id for event in events], "", _TEXT),
        "profile_id": _optional(profile_ids, "", _TEXT),
        "demoted_identifiers": coded(demoted, _list_or_none),
        "original_timestamp": _optional(microseconds([event.original_time for event in events]), 0, _TIME),
        "sent_at": _optional(microseconds([event.sent_time for event in events]), 0, _TIME),
        "received_at": _optional(received, 0, _TIME),
        "timestamp": _optional(happened, 0, _TIME),
        "uuid_ts": loaded,
        "loaded_at": loaded,
        "partition": Each([item[1] for item in items], ColumnType.INTEGER),
        "event_seq": Each([item[2] for item in items], ColumnType.BIGINT),
        "consent_purposes": coded(purposes, json_text),
    }
    return EventColumns(
        events,
        [event.type for event in events],
        names,
        received,
        [happened[i] or received[i] for i in range(len(events))],
        shared,
        [*contexts, *read_signals([event.signals for event in events])],
        {"event": coded(names, _event_column), "event_text": coded(names, _none_if_empty)},
        enrichment_columns([event.enrichments for event in events]),
    )


def _optional(values: Sequence[Any], absent: object, kind: ColumnType) -> Each:
    """A value per event, of which one stands for none."""
    return Each([None if value == absent else value for value in values] if absent in values else values, kind)


def _identities(results: Sequence[bytes]) -> tuple[list[str], list[tuple[str, ...]], list[bytes]]:
    """What identity said of each event: profile, types that were left out, traits. Read once per distinct answer, of which none is kept."""
    wholes, place_of = distinct(results)
    profile_ids: list[str] = []
    demoted: list[tuple[str, ...]] = []
    traits: list[bytes] = []
    for whole in wholes:
        one = event_pb2.IdentityResult.FromString(whole)
        profile_ids.append(one.profile_id)
        demoted.append(tuple(one.demoted_identifier_types))
        traits.append(one.traits)
    return (
        list(map(profile_ids.__getitem__, place_of)),
        list(map(demoted.__getitem__, place_of)),
        list(map(traits.__getitem__, place_of)),
    )


def _list_or_none(values: tuple[str, ...]) -> str | None:
    return json_text(values) if values else None


def _none_if_empty(text: str) -> str | None:
    return text or None


def _event_column(name: str) -> str | None:
    """Segment's ``event``: the name in snake case."""
    return snake(name).strip("_") or None
