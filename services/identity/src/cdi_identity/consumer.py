"""NATS in: enriched events, counted for the computed traits. A message is done once what its events give is committed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1 import event_pb2
from cdi_identity.computing import Counting
from cdi_identity.domain import json_values
from cdi_identity.domain.history import ANONYMOUS_ID, USER_ID
from cdi_identity.ports_computing import Contribution
from cdi_kernel.faults import NotFound, Unavailable
from cdi_kernel.shallow import shallow
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Done, Message, Outcome, ReaderSpec

READER: Final = "identity"

LOADER: Final = "warehouse-loader"
"""The reader that loads the warehouse."""

MAX_EVENTS: Final = 1_000
"""Events in one transaction, which keeps other changes of their workspaces waiting."""

_TYPES: Final[Mapping[int, str]] = {
    event_pb2.EVENT_TYPE_TRACK: "track",
    event_pb2.EVENT_TYPE_IDENTIFY: "identify",
    event_pb2.EVENT_TYPE_PAGE: "page",
    event_pb2.EVENT_TYPE_SCREEN: "screen",
    event_pb2.EVENT_TYPE_GROUP: "group",
}


class EventView(Protocol):
    """The fields of ``cdi.event.v1.Event`` that counting reads; times and results of stages are serialized messages."""

    workspace_id: str
    message_id: str
    type: int
    name: str
    user_id: str
    anonymous_id: str
    event_time: bytes
    properties: bytes
    traits: bytes
    context: bytes
    identity: bytes


class BatchView(Protocol):
    """``cdi.event.v1.EventBatch``."""

    @property
    def events(self) -> Sequence[EventView]:
        """The events in order."""
        ...


_read_batch: Final = cast(Callable[[bytes], BatchView], shallow(event_pb2.EventBatch, levels=2).FromString)


class EnrichedEvent:
    """An event of the stream; see ``CountedEvent``. Its JSON is decoded when a definition first looks at it."""

    __slots__ = ("_decoded", "_view", "event_type", "name", "workspace_id")

    def __init__(self, view: EventView) -> None:
        self.workspace_id = view.workspace_id
        self.event_type = _TYPES.get(view.type, "")
        self.name = view.name
        self._view = view
        self._decoded: dict[str, Any] = {}

    def look(self, path: str) -> object:
        """See ``CountedEvent``."""
        root, *keys = path.split(".")
        if root not in self._decoded:
            self._decoded[root] = json_values.decode(getattr(self._view, root))
        return json_values.at(self._decoded[root], keys)

    def contribution(self, trait_id: int, value: str) -> Contribution | None:
        """See ``CountedEvent``. An identifier that was left out is not the person's."""
        view, resolved = self._view, event_pb2.IdentityResult.FromString(self._view.identity)
        if not resolved.profile_id:
            return None
        left_out = resolved.demoted_identifier_types
        return Contribution(
            trait_id,
            view.message_id,
            str(uuid.UUID(resolved.profile_id)),
            "" if USER_ID in left_out else view.user_id,
            "" if ANONYMOUS_ID in left_out else view.anonymous_id,
            Timestamp.FromString(view.event_time).ToMicroseconds(),
            value,
        )


class Consumer:
    """The handler of ENRICHED."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting

    async def events(self, messages: Sequence[Message[BatchView]]) -> Sequence[Outcome]:
        """One transaction for all of them, none where no event gives anything."""
        await self._counting.count([EnrichedEvent(event) for message in messages for event in message.body.events])
        return [Done()] * len(messages)


def events_spec(service: str, partitions: int) -> ReaderSpec[BatchView]:
    """All owned partitions in one lane: one transaction holds all that has arrived.

    A consumer that does not exist yet begins with the next event: earlier ones come out of the warehouse.
    """
    return ReaderSpec(service, READER, StreamName.ENRICHED, _read_batch, partitions, 1, MAX_EVENTS, linger_seconds=0.05, start="new")


class EnrichedStream:
    """Where ENRICHED and its loading stand; see ``EventStream``.

    Args:
        connection: to the bus.
        partitions: of the installation.
    """

    def __init__(self, connection: Bus, partitions: int) -> None:
        self._bus = connection
        self._partitions = partitions

    async def last_sequence(self) -> int:
        """See ``EventStream``."""
        return await self._bus.last_sequence(StreamName.ENRICHED)

    async def loaded(self, sequence: int) -> bool:
        """See ``EventStream``. The loader acknowledges what is committed."""
        try:
            for partition in range(self._partitions):
                if not await self._bus.settled(StreamName.ENRICHED, LOADER, partition, sequence):
                    return False
        except NotFound as fault:
            raise Unavailable("warehouse", "earlier events are not available: nothing loads events into the warehouse") from fault
        return True
