"""Taking a member out of JSON by its path. All other members stay byte for byte as the client sent them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Rejected

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def without(document: bytes, path: Sequence[str]) -> bytes:
    """A JSON text without the member at a path, or as it is where there is none.

    Args:
        document: JSON; empty where there is none.
        path: names of members, from the outside to the inside; within a list it goes on in each item.

    Raises:
        Rejected: the document may hold the member and is no JSON.
    """
    if path[0].encode() not in document and b"\\" not in document:
        return document
    try:
        return _without(document, path)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Rejected(error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, "a document is not JSON") from error


def _without(document: bytes, path: Sequence[str]) -> bytes:
    if document.startswith(b"["):
        return msgspec.json.encode([msgspec.Raw(_without(bytes(item), path)) for item in _ITEMS.decode(document)])
    if not document.startswith(b"{"):
        return document
    members = _MEMBERS.decode(document)
    if path[0] not in members:
        return document
    if len(path) == 1:
        del members[path[0]]
    else:
        members[path[0]] = msgspec.Raw(_without(bytes(members[path[0]]), path[1:]))
    return msgspec.json.encode(members)
