"""Checked JSON read one level deep: what a translation looks at is decoded, what it only carries stays bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from cdi.error.v1 import error_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import Identifier
from cdi_collector.domain.event_fields import invalid

Members: TypeAlias = Mapping[str, msgspec.Raw]
"""The members of a JSON object."""

Scalar: TypeAlias = str | int | float | bool | None

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_scalar: Final = msgspec.json.Decoder(str | int | float | bool | None).decode


def checked_whole(text: bytes, levels: int) -> tuple[bytes, bool]:
    """The text of a body, repaired if need be, and whether all of it can be read by every stage.

    If not, its items have to be checked one by one: a number outside the range of all stages costs only the item that holds it. Either way
    the text may be several values, or none: whoever decodes it finds that.

    Args:
        text: JSON, as a stranger says.
        levels: of objects and arrays that one expects at most; what has more is looked at closely, not refused.

    Raises:
        InvalidArgument: it is not JSON in UTF-8, or nested deeper than anything can be.
    """
    if json_text.is_sound(text, levels):
        return text, True
    text, fault = json_text.checked(text)
    if fault is not None and fault.reason != error_pb2.ERROR_REASON_INVALID_FIELD:
        raise fault
    return text, fault is None


def members_of(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """The members of an object; ``None`` if the text is something else."""
    try:
        return _decode_members(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def is_absent(raw: msgspec.Raw | None) -> bool:
    """Whether a member is not there, or null."""
    return raw is None or bytes(raw) in (b"", b"null")


def object_of(field: str, raw: msgspec.Raw | None) -> Members:
    """The members of a member that has to be an object if it is there; raises ``InvalidArgument`` naming ``field``."""
    if raw is None or is_absent(raw):
        return {}
    if (members := members_of(raw)) is None:
        raise invalid(field, "an object is expected")
    return members


def scalar(raw: msgspec.Raw | None) -> Scalar:
    """The value of a member; ``None`` also for an object or an array."""
    if raw is None or not bytes(raw):
        return None
    try:
        value: Scalar = _decode_scalar(raw)
    except msgspec.ValidationError:
        return None
    return value


def identifier(field: str, raw: msgspec.Raw | None) -> Identifier:
    """A member that has to be text or a number if it is there; raises ``InvalidArgument`` naming ``field``."""
    if is_absent(raw):
        return None
    value = scalar(raw)
    if value is None or isinstance(value, bool):
        raise invalid(field, "a string or a number is expected")
    return value


def text(field: str, raw: msgspec.Raw | None) -> str | None:
    """A member that has to be text if it is there; raises ``InvalidArgument`` naming ``field``."""
    if is_absent(raw):
        return None
    if not isinstance(value := scalar(raw), str):
        raise invalid(field, "a string is expected")
    return value


def tolerated_id(raw: msgspec.Raw | None) -> Identifier:
    """An id that helps if it is one; ``None`` for anything else."""
    value = scalar(raw)
    return None if value == "" or isinstance(value, bool) else value


def tolerated_text(raw: msgspec.Raw | None) -> str | None:
    """A text that helps if it is one; ``None`` for anything else."""
    value = scalar(raw)
    return value if isinstance(value, str) and value else None
