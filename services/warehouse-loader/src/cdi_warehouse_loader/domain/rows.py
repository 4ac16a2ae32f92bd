"""What events have in common, column by column: ids, times, enrichments, context.

Values that repeat within a batch are read once per distinct value: enrichments, purposes and names reach the warehouse as Arrow
dictionaries, the context as ``contexts`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from cdi.event.v1 import event_pb2
from cdi_warehouse_loader.domain.columns import ARROW, ColumnType, json_text
from cdi_warehouse_loader.domain.contexts import ContextPart, read_contexts
from cdi_warehouse_loader.domain.layout import ENRICHMENT_COLUMNS
from cdi_warehouse_loader.domain.naming import snake

Item = tuple[event_pb2.Event, int, int]
"""An event, its partition, its ``event_seq``."""

H = TypeVar("H")

_TIME: Final = ARROW[ColumnType.TIMESTAMP]
_TEXT: Final = pa.string()
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
        shared: record batch of the columns that every event table has, one row per event.
        context: the contexts, in parts.
        named: record batch of ``event`` and ``event_text``.
        enriched: record batch of the enrichment columns for which an event of the batch has a value.
    """

    events: Sequence[event_pb2.Event]
    kinds: Sequence[int]
    names: Sequence[str]
    received_us: list[int]
    happened_us: list[int]
    shared: Any
    context: Sequence[ContextPart]
    named: Any
    enriched: Any


def decode_object(text: bytes) -> dict[str, Any]:
    """A JSON object as the client sent it; no bytes are no members.

    Raises:
        msgspec.DecodeError: it is not a JSON object.
    """
    return _decode_object(text) if text else {}


def event_columns(items: Sequence[Item], now_us: int) -> EventColumns:
    """Reads what all event tables need.

    Args:
        items: events with their place.
        now_us: time of the load.
    """
    events = [item[0] for item in items]
    received = [(time := event.received_time).seconds * 1_000_000 + time.nanos // 1_000 for event in events]
    happened = [(time := event.event_time).seconds * 1_000_000 + time.nanos // 1_000 for event in events]
    original = [(time := event.original_time).seconds * 1_000_000 + time.nanos // 1_000 for event in events]
    sent = [(time := event.sent_time).seconds * 1_000_000 + time.nanos // 1_000 for event in events]
    names = [event.name or event.schema_uri for event in events]
    load_time = pa.repeat(pa.scalar(now_us, pa.int64()), len(events)).cast(_TIME)
    columns: dict[str, Any] = {
        "id": pa.array([event.message_id for event in events], _TEXT),
        "workspace_id": _dictionary([event.workspace_id for event in events]),
        "source_id": _dictionary([event.source_id for event in events]),
        "user_id": _texts([event.user_id for event in events]),
        "anonymous_id": _texts([event.anonymous_id for event in events]),
        "profile_id": _texts([event.identity.profile_id for event in events]),
        "original_timestamp": _times(original),
        "sent_at": _times(sent),
        "received_at": _times(received),
        "timestamp": _times(happened),
        "uuid_ts": load_time,
        "loaded_at": load_time,
        "partition": pa.array([item[1] for item in items], pa.int32()),
        "event_seq": pa.array([item[2] for item in items], pa.int64()),
        "consent_purposes": _dictionary([tuple(event.consent.granted_purposes) for event in events], json_text),
    }
    named = {"event": _dictionary(names, _event_column), "event_text": _dictionary(names)}
    return EventColumns(
        events,
        [event.type for event in events],
        names,
        received,
        [happened[i] or received[i] for i in range(len(events))],
        pa.RecordBatch.from_pydict(columns),
        read_contexts([event.context for event in events]),
        pa.RecordBatch.from_pydict(named),
        pa.RecordBatch.from_pydict(_enrichments(events)),
    )


def _times(micros: Sequence[int]) -> Any:
    """Times; 0 is none."""
    return pa.array([value or None for value in micros] if 0 in micros else micros, pa.int64()).cast(_TIME)


def _texts(values: Sequence[str]) -> Any:
    """Texts; an empty one is none."""
    return pa.array([value or None for value in values] if "" in values else values, _TEXT)


def _dictionary(values: Sequence[Any], show: Callable[[Any], str | None] = lambda value: value or None) -> Any:
    """Few distinct values as an Arrow dictionary."""
    places, indices = _distinct(values)
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array([show(value) for value in places], _TEXT))


def _distinct(values: Sequence[H]) -> tuple[dict[H, int], list[int]]:
    """Distinct values with their places, and per value its place."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return places, list(map(places.__getitem__, values))


def _event_column(name: str) -> str | None:
    """Segment's ``event``: the name in snake case."""
    return snake(name).strip("_") or None


def _enrichments(events: Sequence[event_pb2.Event]) -> dict[str, Any]:
    """The enrichment columns that at least one event has a value for."""
    places, found = _distinct([event.enrichments.SerializeToString() for event in events])
    indices = pa.array(found, pa.int32())
    rows = [_enrichment_row(event_pb2.Enrichments.FromString(serialized)) for serialized in places]
    columns: dict[str, Any] = {}
    for (name, kind), values in zip(ENRICHMENT_COLUMNS.items(), zip(*rows, strict=True), strict=True):
        if any(value is not None for value in values):
            columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(values, ARROW[kind]))
    return columns


def _enrichment_row(found: event_pb2.Enrichments) -> tuple[str | bool | None, ...]:
    """In the order of ``ENRICHMENT_COLUMNS``."""
    agent, campaign, referrer, geo, email = found.user_agent, found.campaign, found.referrer, found.geo, found.email_quality
    texts = (
        *(agent.browser, agent.browser_version, agent.os, agent.os_version, agent.device),
        *(campaign.source, campaign.medium, campaign.name, campaign.term, campaign.content, campaign.click_id_type, campaign.click_id),
        *(referrer.medium, referrer.source, referrer.host, referrer.term),
        *(geo.country, geo.region, geo.city),
    )
    shown = [text or None for text in texts]
    has_agent, has_email = found.HasField("user_agent"), found.HasField("email_quality")
    qualities = (email.valid_syntax, email.disposable, email.role_account, email.free_provider)
    return (*shown[:5], agent.bot if has_agent else None, *shown[5:], *(value if has_email else None for value in qualities))
