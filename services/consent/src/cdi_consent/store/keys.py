"""The installation's keys for privacy: what digests are made with, and what reports are signed with."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cdi.error.v1 import error_pb2
from cdi_consent.domain.tombstones import Digester
from cdi_kernel.faults import FailedPrecondition
from cdi_runtime.store import Database, raw

KEY_BYTES: Final = 32

_KEEP: Final = """
WITH kept AS (INSERT INTO privacy_keys (name, content) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING content)
SELECT content FROM kept UNION ALL SELECT content FROM privacy_keys WHERE name = $1
"""
_FINGERPRINT: Final = ("", "fingerprint", "cdi.consent.privacy-key/1")
"""What is digested to know a key again."""


async def digester_of(database: Database, given: bytes) -> Digester:
    """Makes digests with the given key; without one, with a key that was made here once and is kept in the database.

    Raises:
        FailedPrecondition: digests were made with another key. With this one no tombstone would be found again.
        Unavailable: the database does not answer.
    """
    digest = Digester(given or await _kept(database, "digest", os.urandom(KEY_BYTES)))
    fingerprint = digest(_FINGERPRINT)
    if await _kept(database, "fingerprint", fingerprint) != fingerprint:
        reason = "CDI_PRIVACY_KEY is another one than the tombstones were made with: with this one none of them would be found"
        raise FailedPrecondition(error_pb2.ERROR_REASON_INVALID_ARGUMENT, reason)
    return digest


async def signing_key_of(database: Database, given: Ed25519PrivateKey | None) -> Ed25519PrivateKey:
    """The given key; without one, a key that was made here once and is kept in the database. Raises ``Unavailable``."""
    if given is not None:
        return given
    return Ed25519PrivateKey.from_private_bytes(await _kept(database, "signing", Ed25519PrivateKey.generate().private_bytes_raw()))


async def _kept(database: Database, name: str, new: bytes) -> bytes:
    """What is kept under a name; ``new`` if nothing was."""
    async with database.session() as connection:
        # Another replica may have been the first without this statement seeing it: then the next one does.
        while True:
            content: bytes | None = await raw(connection).fetchval(_KEEP, name, new)
            if content is not None:
                return content
