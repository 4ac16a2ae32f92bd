"""What stands for an erased id: tombstones must recognise it and must not hold it."""

from __future__ import annotations

import hashlib
from typing import Final

DIGEST_BYTES: Final = 16


def digest_of(workspace_id: str, kind: str, value: str) -> bytes:
    """16 bytes that stand for one id of a workspace.

    Who holds the store can still test a guess, as with every tombstone that its own store can use; it is no list of ids.

    Args:
        workspace_id: the workspace.
        kind: type of the id, ``profile_id`` for a profile's.
        value: the id.
    """
    return hashlib.blake2b(f"{workspace_id}\x1f{kind}\x1f{value}".encode(), digest_size=DIGEST_BYTES).digest()
