"""What the rest of the suite is told of a commit: ``GraphChanged``, one message per workspace, several where it would grow large."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cdi.identity.v1 import profile_pb2 as pb
from cdi_identity.domain.changes import CanonicalEntry, Changes, TraitEntry
from cdi_identity.domain.identifiers import Identifier
from cdi_kernel import envelope, topology
from cdi_runtime.store import OutboxMessage

SCHEMA: Final = "cdi.identity.v1.GraphChanged"

MAX_BYTES: Final = 256 * 1024
"""Bytes of one message, about; a quarter of what NATS takes."""

_OVERHEAD: Final = 150
"""Bytes of an entry beside its longest texts: two profile ids, a type or a name, tags and lengths."""

CREATED: Final = pb.MAPPING_OPERATION_CREATED
REMOVED: Final = pb.MAPPING_OPERATION_REMOVED


class Announcement:
    """The messages of one workspace, filled in order.

    Args:
        workspace_id: the workspace.
        now: when the graph was changed.
    """

    def __init__(self, workspace_id: str, now: datetime) -> None:
        self._workspace_id = workspace_id
        self._now = now
        self._messages: list[pb.GraphChanged] = []
        self._left = 0

    def canonical(self, entry: CanonicalEntry) -> None:
        """A profile is part of another one from now on, or stands alone."""
        cause = entry.cause
        self._room(_size(cause.message_id)).canonicals.add(
            profile_id=entry.profile_id,
            canonical_profile_id=entry.canonical_profile_id,
            triggering_event_type=cause.event_type,
            triggering_event_id=cause.message_id,
        )

    def mapping(self, identifier: Identifier, profile_id: str, operation: pb.MappingOperation.ValueType, message_id: str) -> None:
        """An identifier was given to a profile, or taken from it."""
        _, kind, value = identifier
        item = self._room(_size(value) + _size(message_id)).mappings.add(
            profile_id=profile_id, operation=operation, triggering_event_id=message_id
        )
        item.identifier.type = kind
        item.identifier.value = value

    def trait(self, entry: TraitEntry, message_id: str) -> None:
        """A trait has another value now; ``message_id`` is what took it away, if it has none."""
        trait = entry.trait
        if trait is None:
            self._room(_size(entry.name)).traits.add(profile_id=entry.profile_id, name=entry.name, triggering_event_id=message_id)
            return
        source, value = trait.source, bytes(trait.value)
        item = self._room(len(value) + _size(source.message_id)).traits.add(
            profile_id=entry.profile_id, name=entry.name, value=value, triggering_event_id=source.message_id or message_id
        )
        seconds, microseconds = divmod(source.time_us, 1_000_000)
        item.event_time.seconds = seconds
        item.event_time.nanos = microseconds * 1_000

    def reread(self, profile_id: str) -> None:
        """An erasure took a profile, or something from it."""
        self._room(0).reread_profile_ids.append(profile_id)

    def messages(self) -> list[OutboxMessage]:
        """All of it, ready for the outbox."""
        subject, headers = topology.identity("changed"), {envelope.SCHEMA: SCHEMA}
        return [OutboxMessage(subject, message.SerializeToString(), headers) for message in self._messages]

    def _room(self, size: int) -> pb.GraphChanged:
        """The message that takes an entry with about so many bytes of its own. The longest is far below a message's size."""
        self._left -= size + _OVERHEAD
        if self._left < 0:
            message = pb.GraphChanged(workspace_id=self._workspace_id)
            message.change_time.FromDatetime(self._now)
            self._messages.append(message)
            self._left = MAX_BYTES - size - _OVERHEAD
        return self._messages[-1]


def _size(text: str) -> int:
    """Bytes of a text, at most."""
    return len(text) if text.isascii() else 4 * len(text)


def announced(changes: Changes, now: datetime) -> list[OutboxMessage]:
    """What is to be told of a batch, workspace by workspace: canonicals, then mappings, then traits."""
    announcements: dict[str, Announcement] = {}

    def of(workspace_id: str) -> Announcement:
        found = announcements.get(workspace_id)
        if found is None:
            found = announcements[workspace_id] = Announcement(workspace_id, now)
        return found

    for entry in changes.canonicals:
        of(entry.workspace_id).canonical(entry)
    for identifier, profile, decision in changes.identifiers:
        of(identifier[0]).mapping(identifier, profile.profile_id, CREATED, changes.decisions[decision].cause.message_id)
    for trait in changes.traits:
        of(trait.workspace_id).trait(trait, "")
    return [message for announcement in announcements.values() for message in announcement.messages()]
