"""What the rest of the suite is told of a commit: ``GraphChanged``, one message per workspace, several where it would grow large.

The messages are written as bytes, entry by entry: a new person makes six or seven entries, and an object each takes twice as long.
A message is its fields one after the other, each with its tag in front, and texts and messages with their length
(https://protobuf.dev/programming-guides/encoding). What many entries repeat, ids above all, is written once and kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.identity.v1 import profile_pb2 as pb
from cdi_identity.domain.changes import CanonicalEntry, Changes, TraitEntry
from cdi_identity.domain.identifiers import Identifier
from cdi_kernel import envelope, topology
from cdi_kernel.wire import varint
from cdi_runtime.store import OutboxMessage

SCHEMA: Final = "cdi.identity.v1.GraphChanged"

MAX_BYTES: Final = 256 * 1024
"""Bytes of one message; a quarter of what NATS takes."""

_FRAME_BYTES: Final = 4
"""What stands in front of an entry, at most."""

CREATED: Final = pb.MAPPING_OPERATION_CREATED
REMOVED: Final = pb.MAPPING_OPERATION_REMOVED


def _tag(number: int) -> bytes:
    """What stands in front of a field that has a length."""
    return varint(number << 3 | 2)


_LENGTHS: Final = tuple(map(varint, range(1_000)))
_CANONICALS: Final = _tag(pb.GraphChanged.CANONICALS_FIELD_NUMBER)
_MAPPINGS: Final = _tag(pb.GraphChanged.MAPPINGS_FIELD_NUMBER)
_TRAITS: Final = _tag(pb.GraphChanged.TRAITS_FIELD_NUMBER)
_REREAD: Final = _tag(pb.GraphChanged.REREAD_PROFILE_IDS_FIELD_NUMBER)
_CANONICAL_OF: Final = _tag(pb.CanonicalChange.PROFILE_ID_FIELD_NUMBER)
_CANONICAL_ID: Final = _tag(pb.CanonicalChange.CANONICAL_PROFILE_ID_FIELD_NUMBER)
_CANONICAL_TYPE: Final = _tag(pb.CanonicalChange.TRIGGERING_EVENT_TYPE_FIELD_NUMBER)
_CANONICAL_CAUSE: Final = _tag(pb.CanonicalChange.TRIGGERING_EVENT_ID_FIELD_NUMBER)
_IDENTIFIER: Final = _tag(pb.MappingChange.IDENTIFIER_FIELD_NUMBER)
_TYPE: Final = _tag(pb.Identifier.TYPE_FIELD_NUMBER)
_VALUE: Final = _tag(pb.Identifier.VALUE_FIELD_NUMBER)
_MAPPING_OF: Final = _tag(pb.MappingChange.PROFILE_ID_FIELD_NUMBER)
_MAPPING_CAUSE: Final = _tag(pb.MappingChange.TRIGGERING_EVENT_ID_FIELD_NUMBER)
_OPERATIONS: Final = {operation: pb.MappingChange(operation=operation).SerializeToString() for operation in (CREATED, REMOVED)}
_TRAIT_OF: Final = _tag(pb.TraitChange.PROFILE_ID_FIELD_NUMBER)
_TRAIT_NAME: Final = _tag(pb.TraitChange.NAME_FIELD_NUMBER)
_TRAIT_VALUE: Final = _tag(pb.TraitChange.VALUE_FIELD_NUMBER)
_TRAIT_CAUSE: Final = _tag(pb.TraitChange.TRIGGERING_EVENT_ID_FIELD_NUMBER)


class _Texts(dict[str, bytes]):
    """Texts with their length in front, written when they are asked for first."""

    def __missing__(self, text: str) -> bytes:
        self[text] = written = _sized(text.encode())
        return written


class _Times(dict[int, bytes]):
    """Times of events, microseconds since 1970, as fields of a ``TraitChange``."""

    def __missing__(self, time_us: int) -> bytes:
        seconds, microseconds = divmod(time_us, 1_000_000)
        event_time = Timestamp(seconds=seconds, nanos=microseconds * 1_000)
        self[time_us] = written = pb.TraitChange(event_time=event_time).SerializeToString()
        return written


class Announcement:
    """The messages of one workspace, filled in order.

    Args:
        workspace_id: the workspace.
        now: when the graph was changed.
    """

    def __init__(self, workspace_id: str, now: datetime) -> None:
        begin = pb.GraphChanged(workspace_id=workspace_id)
        begin.change_time.FromDatetime(now)
        self._begin = begin.SerializeToString()
        self._payloads: list[bytes] = []
        self._parts: list[bytes] = []
        self._room = 0
        self._texts = _Texts()
        self._times = _Times()

    def canonical(self, entry: CanonicalEntry) -> None:
        """A profile is part of another one from now on, or stands alone."""
        _, profile_id, canonical_id, (message_id, event_type) = entry
        texts = self._texts
        parts = (_CANONICAL_OF, texts[profile_id], _CANONICAL_ID, texts[canonical_id], _CANONICAL_TYPE, texts[event_type])
        self._add(_CANONICALS, b"".join((*parts, _CANONICAL_CAUSE, texts[message_id])))

    def mapping(self, identifier: Identifier, profile_id: str, operation: pb.MappingOperation.ValueType, message_id: str) -> None:
        """An identifier was given to a profile, or taken from it."""
        _, kind, value = identifier
        texts = self._texts
        named = _sized(b"".join((_TYPE, texts[kind], _VALUE, _sized(value.encode()))))
        parts = (_IDENTIFIER, named, _MAPPING_OF, texts[profile_id], _OPERATIONS[operation], _MAPPING_CAUSE, texts[message_id])
        self._add(_MAPPINGS, b"".join(parts))

    def trait(self, entry: TraitEntry, message_id: str) -> None:
        """A trait has another value now; ``message_id`` is what took it away, if it has none."""
        _, profile_id, name, trait = entry
        texts = self._texts
        news = b""
        if trait is not None:
            (time_us, cause, _), value = trait
            message_id = cause or message_id
            news = b"".join((_TRAIT_VALUE, _sized(bytes(value)), self._times[time_us]))
        self._add(_TRAITS, b"".join((_TRAIT_OF, texts[profile_id], _TRAIT_NAME, texts[name], news, _TRAIT_CAUSE, texts[message_id])))

    def reread(self, profile_id: str) -> None:
        """An erasure took a profile, or something from it."""
        self._add(_REREAD, profile_id.encode())

    def messages(self) -> list[OutboxMessage]:
        """All of it, ready for the outbox."""
        self._end()
        subject, headers = topology.identity("changed"), {envelope.SCHEMA: SCHEMA}
        return [OutboxMessage(subject, payload, headers) for payload in self._payloads]

    def _add(self, tag: bytes, entry: bytes) -> None:
        """Adds an entry, to another message if this one would grow too large. The longest entry is far below a message's size."""
        size = len(entry)
        self._room -= size + _FRAME_BYTES
        if self._room < 0:
            self._end()
            self._parts.append(self._begin)
            self._room = MAX_BYTES - len(self._begin) - size - _FRAME_BYTES
        self._parts += (tag, _LENGTHS[size] if size < len(_LENGTHS) else varint(size), entry)

    def _end(self) -> None:
        """Ends the message that is being filled."""
        if self._parts:
            self._payloads.append(b"".join(self._parts))
            self._parts.clear()


class Announcements(dict[str, Announcement]):
    """Announcements by workspace, each begun when it is asked for first.

    Args:
        now: when the graph was changed.
    """

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self._now = now

    def __missing__(self, workspace_id: str) -> Announcement:
        self[workspace_id] = begun = Announcement(workspace_id, self._now)
        return begun

    def batch(self, changes: Changes) -> None:
        """What a batch changed, workspace by workspace: canonicals, then mappings, then traits."""
        decisions = changes.decisions
        for entry in changes.canonicals:
            self[entry.workspace_id].canonical(entry)
        for identifier, profile, decision in changes.identifiers:
            self[identifier[0]].mapping(identifier, profile.profile_id, CREATED, decisions[decision].cause.message_id)
        self.traits(changes.traits())

    def traits(self, entries: Iterable[TraitEntry]) -> None:
        """Traits that have another value now."""
        for entry in entries:
            self[entry.workspace_id].trait(entry, "")

    def messages(self) -> list[OutboxMessage]:
        """All of them, ready for the outbox."""
        return [message for announcement in self.values() for message in announcement.messages()]


def _sized(content: bytes) -> bytes:
    """Bytes with their length in front."""
    size = len(content)
    return (_LENGTHS[size] if size < len(_LENGTHS) else varint(size)) + content
