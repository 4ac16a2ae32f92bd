"""From client events to framed ``cdi.event.v1.Event`` per partition: the rules of an event, its times, its partition.

``admit`` is the hot loop of the collector: no allocation that is not needed, one serialization, no message object per event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from cdi.event.v1 import event_pb2
from cdi_collector.domain import event_fields, json_text, wire
from cdi_collector.domain.client_event import ClientEvent, Item, JsonText, nesting_fault
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.event_fields import append_objects, append_subject, append_times, too_large
from cdi_collector.domain.limits import MAX_EVENT_BYTES
from cdi_collector.domain.signals import NO_SIGNALS, Signals
from cdi_collector.domain.sources import Source
from cdi_kernel.clock import correct_skew
from cdi_kernel.faults import Fault
from cdi_kernel.topology import partition_of


class Arrival(msgspec.Struct, frozen=True):
    """What holds for all events of one request.

    Attributes:
        source: whose write key it was.
        received_us: microseconds since 1970, by the collector's clock.
        sent_us: when the client sent it, by the client's clock; ``None`` if it did not say.
        client_ip: where the request came from.
        user_agent: its User-Agent header.
        partitions: partitions of the installation.
        new_message_id: makes the id of an event that has none.
        signals: what the request says of its sender.
    """

    source: Source
    received_us: int
    sent_us: int | None
    client_ip: str
    user_agent: str
    partitions: int
    new_message_id: Callable[[], str]
    signals: Signals = NO_SIGNALS

    def constant_fields(self) -> bytes:
        """The fields that every event of the request shares, serialized once."""
        signals = self.signals.field(self.user_agent)
        return b"".join(
            (
                _source_fields(self.source.workspace_id, self.source.source_id),
                *wire.CLIENT_IP.of(self.client_ip.encode()),
                *wire.USER_AGENT.of(self.user_agent.encode()),
                b"" if signals is None else event_pb2.Event(signals=signals).SerializeToString(),
                wire.RECEIVED_TIME,
                wire.timestamp(self.received_us),
            )
        )

    def sent_field(self) -> bytes:
        """When the request was sent, as a field; empty if it did not say."""
        return b"" if self.sent_us is None else wire.SENT_TIME + wire.timestamp(self.sent_us)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that breaks a rule: its place in the request and why."""

    index: int
    fault: Fault


class Intake(msgspec.Struct):
    """What a request comes to.

    Attributes:
        frames: framed events by partition, in the order of the request.
        links: traceparents of the sampled events, by partition.
        message_ids: of each item, given or made; empty where it could not be read.
        refusals: the items that are no events, by rising index.
    """

    frames: dict[int, list[bytes]] = msgspec.field(default_factory=dict)
    links: dict[int, list[str]] = msgspec.field(default_factory=dict)
    message_ids: list[str] = msgspec.field(default_factory=list)
    refusals: list[Refusal] = msgspec.field(default_factory=list)

    @property
    def accepted(self) -> int:
        """Number of events that passed."""
        return len(self.message_ids) - len(self.refusals)


def admit(items: Sequence[Item] | EncodedEvents, arrival: Arrival, traceparents: Mapping[int, str]) -> Intake:
    """Applies the rules to every item.

    Args:
        items: in the order of the request.
        arrival: what they share.
        traceparents: of the sampled ones, by index.
    """
    if isinstance(items, EncodedEvents):
        return _admit_encoded(items, arrival, traceparents)
    intake = Intake()
    frames, message_ids = intake.frames, intake.message_ids
    bare = arrival.constant_fields()
    constant = bare + arrival.sent_field()
    workspace_id, partitions = arrival.source.workspace_id, arrival.partitions
    received_us, sent_us = arrival.received_us, arrival.sent_us
    for index, item in enumerate(items):
        message_id = ""
        try:
            if isinstance(item, Fault):
                raise item
            message_id = event_fields.message_id(item) or arrival.new_message_id()
            parts = [constant if item.sent_at is None else bare]
            person = append_subject(parts, item, message_id)
            append_times(parts, item, received_us, sent_us)
            append_objects(parts, item)
            partition, partition_field = _partition_of(workspace_id, person, partitions)
            parts.append(partition_field)
            if traceparents and index in traceparents:
                parts += wire.TRACEPARENT.of(traceparents[index].encode())
                intake.links.setdefault(partition, []).append(traceparents[index])
            framed = wire.framed(parts)
            if len(framed) > MAX_EVENT_BYTES:
                raise too_large(len(framed))
            if partition in frames:
                frames[partition].append(framed)
            else:
                frames[partition] = [framed]
        except Fault as fault:
            intake.refusals.append(Refusal(index, fault))
        message_ids.append(message_id)
    return intake


def _admit_encoded(events: EncodedEvents, arrival: Arrival, traceparents: Mapping[int, str]) -> Intake:
    """``admit`` for events of which only the size is left to check."""
    intake = Intake(message_ids=list(events.message_ids))
    fields, links = list(events.fields), intake.links
    workspace_id, partitions = arrival.source.workspace_id, arrival.partitions
    for index, traceparent in traceparents.items():
        fields[index] += b"".join(wire.TRACEPARENT.of(traceparent.encode()))
        partition, _ = _partition_of(workspace_id, events.persons[index], partitions)
        links.setdefault(partition, []).append(traceparent)
    constant = arrival.constant_fields() + arrival.sent_field()
    frames: defaultdict[int, list[bytes]] = defaultdict(list)
    for index, (own, person, event_time) in enumerate(zip(fields, events.persons, _event_times(events, arrival), strict=True)):
        partition, partition_field = _partition_of(workspace_id, person, partitions)
        framed = wire.framed((constant, own, partition_field, event_time))
        if len(framed) > MAX_EVENT_BYTES:
            intake.refusals.append(Refusal(index, too_large(len(framed))))
        else:
            frames[partition].append(framed)
    intake.frames = frames
    return intake


def _event_times(events: EncodedEvents, arrival: Arrival) -> list[bytes]:
    """When each happened, as a field."""
    received_us, sent_us = arrival.received_us, arrival.sent_us
    if sent_us is None:
        # What the client says stands, in the bytes in which it said so.
        received, heads = wire.EVENT_TIME + wire.timestamp(received_us), wire.EVENT_TIME_HEADS
        return [heads[len(time)] + time if time else received for time in events.original_times]
    return [wire.EVENT_TIME + wire.timestamp(correct_skew(received_us, original_us, sent_us)) for original_us in events.original_us]


@lru_cache(8_192)
def _partition_of(workspace_id: str, person: str, partitions: int) -> tuple[int, bytes]:
    """The partition of a person, and as a field. People send again and again; a look into the cache is a fifth of the hash."""
    partition = partition_of(workspace_id, person, partitions)
    return partition, wire.PARTITION + wire.size(partition)


@lru_cache(1_024)
def _source_fields(workspace_id: str, source_id: str) -> bytes:
    return event_pb2.Event(workspace_id=workspace_id, source_id=source_id).SerializeToString()


def with_defaults(items: Sequence[Item], context: bytes, integrations: bytes) -> list[Item]:
    """The items with the batch's own context and integrations, which are JSON objects; an item's members win."""
    return [item if isinstance(item, Fault) else _with_defaults(item, context, integrations) for item in items]


def _with_defaults(item: ClientEvent, context: bytes, integrations: bytes) -> Item:
    if context:
        item.context = _default(context, item.context)
    if integrations:
        item.integrations = _default(integrations, item.integrations)
    return nesting_fault(item) or item


def _default(outer: bytes, raw: JsonText) -> JsonText:
    inner = bytes(raw)
    if inner in (b"", b"null"):
        return msgspec.Raw(outer)
    # What is no object stays as it is, to be refused with its event.
    return msgspec.Raw(json_text.merged(outer, inner)) if json_text.is_object(inner) else raw
