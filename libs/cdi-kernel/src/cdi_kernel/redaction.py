"""What may be shown of a value that must not be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import Message

MASK: Final = "[redacted]"


def redacted(message: Message) -> Mapping[str, object]:
    """The set fields of a message, ``debug_redact`` ones masked, nested messages included. For people, never on the data path."""
    shown: dict[str, object] = {}
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            shown[field.name] = MASK
        elif (kind := field.message_type) is not None and not kind.GetOptions().map_entry:
            shown[field.name] = [redacted(item) for item in value] if field.is_repeated else redacted(value)
        else:
            shown[field.name] = list(value) if field.is_repeated else value
    return shown
