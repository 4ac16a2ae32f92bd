"""Claims: which occurrence of a message id is the event, and which ones are duplicates of it.

The first occurrence that reaches the store holds the claim, named by its place in COLLECTED (sequence, position). An event is a
duplicate if and only if somebody else holds its claim. Hence a message that comes again after a crash finds its own claims and
loses nothing, and a crash between claim and publish repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec

KEY_BYTES = 16


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands in COLLECTED.

    Attributes:
        sequence: of the message in the stream.
        position: of the event in the message, from 0.
    """

    sequence: int
    position: int


def claim_key(workspace_id: str, message_id: str) -> bytes:
    """The 16 bytes under which an event's claim is stored; cryptographic, so that no client can aim at another's key."""
    key = _begun(workspace_id).copy()
    key.update(message_id.encode())
    return key.digest()


@lru_cache(maxsize=1_024)
def _begun(workspace_id: str) -> blake2b:
    return blake2b(f"{workspace_id}\x1f".encode(), digest_size=KEY_BYTES)


def wanted_claims(events: Iterable[tuple[bytes, Place]]) -> dict[bytes, Place]:
    """The claims to ask for: of events with the same key in one batch, the first one stands for all."""
    wanted: dict[bytes, Place] = {}
    for key, place in events:
        wanted.setdefault(key, place)
    return wanted


def is_duplicate(key: bytes, place: Place, wanted: Mapping[bytes, Place], foreign: Mapping[bytes, Place]) -> bool:
    """Whether somebody else holds the event's claim.

    Args:
        key: the event's key.
        place: the event's place.
        wanted: the claims that were asked for.
        foreign: of those, the ones that another place holds.
    """
    holder = foreign.get(key)
    return (wanted[key] if holder is None else holder) != place
