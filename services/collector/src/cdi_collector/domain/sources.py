"""Sources and their write keys: hashing, looking up, and what makes a source document valid."""

from __future__ import annotations

import dataclasses
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_collector.domain import protection, webhook_rules
from cdi_collector.domain.protection import UNPROTECTED, Protection
from cdi_collector.domain.webhooks import WebhookRule
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from cdi_kernel.ids import SourceId, WorkspaceId

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAX_KEYS: Final = 100
_MAX_KEY_LENGTH: Final = 256
_FINGERPRINT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Source:
    """A place that events come from, as the collector keeps it.

    Attributes:
        workspace_id: the workspace.
        source_id: its id within the workspace.
        disabled: its events are refused.
        version: rises with every change.
        key_hashes: SHA-256 of its write keys. They are random and long, so a plain hash cannot be guessed backwards.
        webhook: how its web hooks are signed and read; ``None`` if nothing is said about them.
        protection: who may send, how fast, and what is kept of them.
        expiries: of those of its keys that end, when: microseconds since 1970, by hash.
    """

    workspace_id: WorkspaceId
    source_id: SourceId
    disabled: bool
    version: int
    key_hashes: frozenset[bytes]
    webhook: WebhookRule | None = None
    protection: Protection = UNPROTECTED
    expiries: Mapping[bytes, int] = dataclasses.field(default_factory=dict)

    def with_key(self, digest: bytes) -> Source:
        """With one more key."""
        if len(self.key_hashes) >= _MAX_KEYS:
            metadata = {"field": "source.write_keys"}
            raise FailedPrecondition(error_pb2.ERROR_REASON_INVALID_ARGUMENT, f"a source has at most {_MAX_KEYS} keys", metadata=metadata)
        return replace(self, key_hashes=self.key_hashes | {digest})

    def rotated(self, digest: bytes, expire_us: int) -> Source:
        """With one more key, and all others ending then, or when they would have ended before."""
        expiries = {old: min(expire_us, self.expiries.get(old, expire_us)) for old in self.key_hashes}
        return replace(self.with_key(digest), expiries=expiries)

    def without_key(self, fingerprint: str) -> Source:
        """Without one of its keys; raises ``NotFound`` if it has none of that fingerprint."""
        left = frozenset(digest for digest in self.key_hashes if fingerprint_of(digest) != fingerprint)
        if left == self.key_hashes:
            metadata = {"resource": "write_key", "name": fingerprint}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "the source has no such key", metadata=metadata)
        return replace(self, key_hashes=left, expiries={old: when for old, when in self.expiries.items() if old in left})


def hash_of(write_key: str) -> bytes:
    """The hash under which a write key is stored."""
    return sha256(write_key.encode()).digest()


def fingerprint_of(digest: bytes) -> str:
    """What may be shown of a key: enough to tell it from others, too little to try keys against."""
    return digest[:_FINGERPRINT_BYTES].hex()


class SourceSnapshot:
    """All sources at one moment, by write key. A key that is not in it is unknown: nobody asks the database about a stranger's key."""

    def __init__(self, sources: Iterable[Source]) -> None:
        sources = tuple(sources)
        self._by_hash: dict[bytes, tuple[bytes, Source]] = {digest: (digest, source) for source in sources for digest in source.key_hashes}
        self._by_id: dict[tuple[str, str], Source] = {(source.workspace_id, source.source_id): source for source in sources}

    def authenticate(self, write_key: str) -> Source:
        """The source that a key belongs to.

        Raises:
            Unauthenticated: no key was given, or no source has it.
            PermissionDenied: the source is switched off.
        """
        digest = hash_of(write_key)
        stored, source = self._by_hash.get(digest, (b"", None))
        if source is None or not hmac.compare_digest(stored, digest):
            text = "no source has this write key" if write_key else "no write key was given"
            raise Unauthenticated(error_pb2.ERROR_REASON_UNKNOWN_WRITE_KEY, text)
        return _enabled(source)

    def named(self, workspace_id: str, source_id: str) -> Source:
        """The source of a name, which is no secret: what is done for it needs another proof.

        Raises:
            NotFound: there is none.
            PermissionDenied: the source is switched off.
        """
        if (source := self._by_id.get((workspace_id, source_id))) is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "there is no such source", metadata={"resource": "source"})
        return _enabled(source)


def _enabled(source: Source) -> Source:
    if source.disabled:
        metadata = {"source": source.source_id}
        raise PermissionDenied(error_pb2.ERROR_REASON_SOURCE_DISABLED, "the source is switched off", metadata=metadata)
    return source


def violations(source: Source, write_keys: Iterable[str]) -> Fault | None:
    """What is wrong with a source and its keys in the clear, or ``None``."""
    keys = list(write_keys)
    wrong: list[tuple[str, str]] = [] if source.webhook is None else webhook_rules.violations(source.webhook)
    wrong += protection.violations(source.protection)
    for field, value in (("workspace_id", source.workspace_id), ("source_id", source.source_id)):
        if not _NAME.fullmatch(value):
            wrong.append((f"source.{field}", "letters, digits, '_', '.', '-', starting with a letter or digit, at most 63"))
    if len(keys) > _MAX_KEYS:
        wrong.append(("source.write_keys", f"at most {_MAX_KEYS}"))
    if any(not key or len(key) > _MAX_KEY_LENGTH or not key.isprintable() for key in keys):
        wrong.append(("source.write_keys", f"1 to {_MAX_KEY_LENGTH} printable characters"))
    return InvalidArgument("the source breaks rules of its fields", field_violations=wrong) if wrong else None
