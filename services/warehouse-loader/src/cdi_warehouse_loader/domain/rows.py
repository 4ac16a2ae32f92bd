"""What events have in common, column by column: ids, times, enrichments, context.

Values that repeat within a batch are read once per distinct value: enrichments, purposes and names reach the warehouse as Arrow
dictionaries, the context as ``contexts`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
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
_FIELDS: Final = (
    "type", "name", "schema_uri", "message_id", "workspace_id", "source_id", "user_id", "anonymous_id", "original_time", "sent_time",
    "received_time", "event_time", "context", "signals", "identity", "enrichments",
)  # fmt: skip
_read_fields: Final = attrgetter(*_FIELDS)
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
    received_us: Sequence[int]
    happened_us: Sequence[int]
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
    events, partitions, sequences = zip(*items, strict=True)
    # Each field of all events at once: asking an event for one after the other costs twice as much.
    fields = dict(zip(_FIELDS, zip(*map(_read_fields, events), strict=True), strict=True))
    received, happened = microseconds(fields["received_time"]), microseconds(fields["event_time"])
    names = [name or schema_uri for name, schema_uri in zip(fields["name"], fields["schema_uri"], strict=True)]
    profile_ids, demoted, traits = _identities(fields["identity"])
    contexts = read_contexts(fields["context"], traits if any(traits) else [])
    loaded = Coded(pa.array([now_us], ARROW[_TIME]), [0] * len(events))
    shared: BatchColumns = {
        "id": Each(fields["message_id"], _TEXT),
        "workspace_id": coded(fields["workspace_id"], _none_if_empty),
        "source_id": coded(fields["source_id"], _none_if_empty),
        "user_id": _optional(fields["user_id"], "", _TEXT),
        "anonymous_id": _optional(fields["anonymous_id"], "", _TEXT),
        "profile_id": _optional(profile_ids, "", _TEXT),
        "demoted_identifiers": coded(demoted, _list_or_none),
        "original_timestamp": _optional(microseconds(fields["original_time"]), 0, _TIME),
        "sent_at": _optional(microseconds(fields["sent_time"]), 0, _TIME),
        "received_at": _optional(received, 0, _TIME),
        "timestamp": _optional(happened, 0, _TIME),
        "uuid_ts": loaded,
        "loaded_at": loaded,
        "partition": Each(partitions, ColumnType.INTEGER),
        "event_seq": Each(sequences, ColumnType.BIGINT),
        "consent_purposes": coded(purposes, json_text),
    }
    return EventColumns(
        events,
        fields["type"],
        names,
        received,
        [at or received_at for at, received_at in zip(happened, received, strict=True)],
        shared,
        [*contexts, *read_signals(fields["signals"])],
        {"event": coded(names, _event_column), "event_text": coded(names, _none_if_empty)},
        enrichment_columns(fields["enrichments"]),
    )


def _optional(values: Sequence[Any], absent: object, kind: ColumnType) -> Each:
    """A value per event, of which one stands for none."""
    return Each([None if value == absent else value for value in values] if absent in values else values, kind)


def _identities(results: Sequence[bytes]) -> tuple[list[str], list[tuple[str, ...]], list[bytes]]:
    """What identity said of each event: profile, types that were left out, traits. Read once per distinct answer, of which none is kept."""
    wholes, place_of = distinct(results)
    read = [_read_identity(event_pb2.IdentityResult.FromString(whole)) for whole in wholes]
    profile_ids, demoted, traits = (list(map(values.__getitem__, place_of)) for values in zip(*read, strict=True))
    return profile_ids, demoted, traits


def _read_identity(one: event_pb2.IdentityResult) -> tuple[str, tuple[str, ...], bytes]:
    return one.profile_id, tuple(one.demoted_identifier_types), one.traits


def _list_or_none(values: tuple[str, ...]) -> str | None:
    return json_text(values) if values else None


def _none_if_empty(text: str) -> str | None:
    return text or None


def _event_column(name: str) -> str | None:
    """Segment's ``event``: the name in snake case."""
    return snake(name).strip("_") or None
