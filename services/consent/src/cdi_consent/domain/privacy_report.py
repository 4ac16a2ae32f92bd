"""The report of a request that has ended: a JSON object without personal data, signed with Ed25519 (RFC 8032)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cdi_consent.domain.privacy import Status, Step, Verb

FORM: Final = "cdi.privacy.report/1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Ended(NamedTuple):
    """A request that has ended, as its report says it; times in microseconds since 1970."""

    request_id: str
    workspace_id: str
    verb: Verb
    status: Status
    regulation: str
    create_us: int
    order_us: int
    finish_us: int
    deadline_us: int


class Signed(NamedTuple):
    """A report.

    Attributes:
        report: JSON, UTF-8.
        signature: Ed25519 over exactly these bytes.
        public_key: to check it with, PEM.
    """

    report: bytes
    signature: bytes
    public_key: str


def report_of(ended: Ended, digests: Iterable[bytes], steps: Sequence[Step]) -> bytes:
    """The report. Keys are sorted, so that the same facts give the same bytes."""
    content = {
        "form": FORM,
        "request_id": ended.request_id,
        "workspace_id": ended.workspace_id,
        "verb": ended.verb.name,
        "status": ended.status.name,
        "regulation": ended.regulation,
        "create_time": _text(ended.create_us),
        "order_time": _text(ended.order_us),
        "finish_time": _text(ended.finish_us),
        "deadline_time": _text(ended.deadline_us),
        "subject_digests": sorted(digest.hex() for digest in digests),
        "steps": [
            {
                "service": step.service,
                "store": step.store,
                "status": step.status.name,
                "count": step.counted,
                "detail": step.detail,
                "attempts": step.attempts,
                "report_time": _text(step.report_us) if step.report_us else None,
            }
            for step in steps
        ],
    }
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def signed(report: bytes, key: Ed25519PrivateKey) -> Signed:
    """A report with its signature. Ed25519 is deterministic: signing again gives the same."""
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Signed(report, key.sign(report), public)


def _text(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")
