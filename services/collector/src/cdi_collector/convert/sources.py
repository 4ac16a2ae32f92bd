"""Messages of ``SourcesService`` ↔ domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1 import source_pb2
from cdi_collector.domain.protection import IpHandling, Protection
from cdi_collector.domain.rate_limit import RateLimit
from cdi_collector.domain.sources import Source, fingerprint_of, hash_of
from cdi_collector.domain.webhooks import Algorithm, Encoding, MappingRule, SignatureRule, WebhookRule
from cdi_kernel.faults import InvalidArgument
from cdi_kernel.ids import SourceId, WorkspaceId

_ALGORITHMS: Final[Mapping[int, Algorithm]] = {
    source_pb2.HMAC_ALGORITHM_SHA256: "sha256",
    source_pb2.HMAC_ALGORITHM_SHA1: "sha1",
    source_pb2.HMAC_ALGORITHM_SHA512: "sha512",
}
_ENCODINGS: Final[Mapping[int, Encoding]] = {source_pb2.SIGNATURE_ENCODING_HEX: "hex", source_pb2.SIGNATURE_ENCODING_BASE64: "base64"}
_IP_HANDLINGS: Final[Mapping[source_pb2.IpHandling.ValueType, IpHandling]] = {
    source_pb2.IP_HANDLING_KEEP: "keep",
    source_pb2.IP_HANDLING_TRUNCATE: "truncate",
    source_pb2.IP_HANDLING_DROP: "drop",
}


def source_of(message: source_pb2.Source) -> Source:
    """A source as asked for; its version is not the client's to set."""
    hashes = frozenset(hash_of(key) for key in message.write_keys)
    webhook = webhook_of(message.webhook) if message.HasField("webhook") else None
    rate = message.rate_limit
    return Source(
        WorkspaceId(message.workspace_id),
        SourceId(message.source_id),
        message.disabled,
        0,
        hashes,
        webhook,
        Protection(
            tuple(sorted({origin.lower() for origin in message.allowed_origins})),
            _IP_HANDLINGS.get(message.ip_handling, "keep"),
            RateLimit(rate.events_per_second, rate.burst) if message.HasField("rate_limit") else None,
        ),
    )


def source_message(source: Source) -> source_pb2.Source:
    """A source, with what may be shown of its keys."""
    protection, limit = source.protection, source.protection.rate_limit
    return source_pb2.Source(
        workspace_id=source.workspace_id,
        source_id=source.source_id,
        disabled=source.disabled,
        version=source.version,
        webhook=None if source.webhook is None else webhook_message(source.webhook),
        allowed_origins=protection.allowed_origins,
        ip_handling=next(number for number, name in _IP_HANDLINGS.items() if name == protection.ip_handling),
        rate_limit=None if limit is None else source_pb2.RateLimit(events_per_second=limit.events_per_second, burst=limit.burst),
        keys=[_key_message(digest, source.expiries.get(digest)) for digest in sorted(source.key_hashes)],
    )


def grace_seconds_of(request: pb.RotateWriteKeysRequest) -> float | None:
    """How long old keys stay valid; ``None`` if nothing is said."""
    grace = request.grace_period
    return grace.seconds + grace.nanos / 1e9 if request.HasField("grace_period") else None


def webhook_of(message: source_pb2.Webhook) -> WebhookRule:
    """What is known of a source's web hooks; fields left out take their defaults."""
    mapping = MappingRule(**{field.name: value for field, value in message.mapping.ListFields()})
    if not message.HasField("signature"):
        return WebhookRule(None, mapping)
    given: dict[str, Any] = {field.name: value for field, value in message.signature.ListFields()}
    given["algorithm"] = _ALGORITHMS.get(message.signature.algorithm, "sha256")
    given["encoding"] = _ENCODINGS.get(message.signature.encoding, "hex")
    given["secrets"] = tuple(message.signature.secrets)
    return WebhookRule(SignatureRule(**{"header": "", **given}), mapping)


def webhook_message(rule: WebhookRule) -> source_pb2.Webhook:
    """The same as a message, defaults spelled out."""
    webhook = source_pb2.Webhook(mapping=source_pb2.WebhookMapping(**asdict(rule.mapping)))
    if (signature := rule.signature) is not None:
        fields = asdict(signature) | {
            "algorithm": next(number for number, name in _ALGORITHMS.items() if name == signature.algorithm),
            "encoding": next(number for number, name in _ENCODINGS.items() if name == signature.encoding),
        }
        webhook.signature.CopyFrom(source_pb2.WebhookSignature(**fields))
    return webhook


def page_token_of(after: str) -> str:
    """The token of the page after a source id; empty for none."""
    return base64.urlsafe_b64encode(after.encode()).decode()


def after_of(page_token: str) -> str:
    """The source id in a page token.

    Raises:
        InvalidArgument: it is no token of ours.
    """
    try:
        return base64.b64decode(page_token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        wrong = ("page_token", "not a token of an earlier answer")
        raise InvalidArgument("the page token cannot be read", field_violations=[wrong]) from error


def _key_message(digest: bytes, expire_us: int | None) -> source_pb2.WriteKey:
    key = source_pb2.WriteKey(fingerprint=fingerprint_of(digest))
    if expire_us is not None:
        key.expire_time.FromMicroseconds(expire_us)
    return key
