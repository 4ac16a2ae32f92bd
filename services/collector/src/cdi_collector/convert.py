"""Requests and responses of the gRPC API ↔ domain."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from cdi.collector.v1 import collector_service_pb2 as pb
from cdi.collector.v1 import source_pb2
from cdi.event.v1 import event_pb2
from cdi_collector.domain import json_text
from cdi_collector.domain.client_event import ABSENT, ClientEvent, Item, nesting_fault
from cdi_collector.domain.event_fields import TYPES, invalid
from cdi_collector.domain.intake import Intake
from cdi_collector.domain.protection import IpHandling, Protection
from cdi_collector.domain.rate_limit import RateLimit
from cdi_collector.domain.sources import Source, fingerprint_of, hash_of
from cdi_collector.domain.webhooks import Algorithm, Encoding, MappingRule, SignatureRule, WebhookRule
from cdi_kernel.clock import MAX_INSTANT_US, MIN_INSTANT_US
from cdi_kernel.faults import Fault, InvalidArgument
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
_NAMES = {number: name for name, number in TYPES.items()}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED_SECONDS: Final = 10_000
_OPENING_BRACE: Final = ord("{")
_CLOSING_BRACE: Final = ord("}")


def items_of(request: pb.IngestEventsRequest) -> Sequence[Item]:
    """The events of a request."""
    return [_item(event) for event in request.events]


def sent_us_of(request: pb.IngestEventsRequest) -> int | None:
    """When the client sent it; ``None`` if it did not say, or nothing that is a time."""
    return _micros(request.sent_time) if request.HasField("sent_time") else None


def results_of(intake: Intake, statuses: Sequence[status_pb2.Status]) -> list[pb.IngestResult]:
    """One result per event, in order.

    Args:
        intake: what the request came to.
        statuses: of its refusals, in their order.
    """
    refused = {refusal.index: status for refusal, status in zip(intake.refusals, statuses, strict=True)}
    stored = status_pb2.Status()
    return [
        pb.IngestResult(index=index, message_id=message_id, status=refused.get(index, stored))
        for index, message_id in enumerate(intake.message_ids)
    ]


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


def _item(event: pb.EventInput) -> Item:
    try:
        item = ClientEvent(
            type=_NAMES.get(event.type, "" if event.type == event_pb2.EVENT_TYPE_UNSPECIFIED else str(event.type)),
            message_id=event.message_id,
            event=event.name,
            name=event.name,
            category=event.category,
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            group_id=event.group_id,
            previous_id=event.previous_id,
            schema_uri=event.schema_uri,
            original_timestamp=_text(event.original_time) if event.HasField("original_time") else None,
            properties=_object("properties", event.properties) if event.HasField("properties") else ABSENT,
            traits=_object("traits", event.traits) if event.HasField("traits") else ABSENT,
            context=_object("context", event.context) if event.HasField("context") else ABSENT,
            integrations=_object("integrations", event.integrations) if event.HasField("integrations") else ABSENT,
        )
    except Fault as fault:
        return fault
    return nesting_fault(item) or item


def _object(field: str, value: pb.JsonObject) -> msgspec.Raw:
    if text := value.json:
        return msgspec.Raw(_checked(field, text))
    if not value.HasField("struct"):
        return ABSENT
    try:
        return msgspec.Raw(msgspec.json.encode(json_format.MessageToDict(value.struct)))
    except (json_format.Error, ValueError) as error:
        # Which of them it is depends on the release of protobuf; the native one lets ValueError through.
        raise invalid(field, "a number of a Struct has to be finite") from error


def _checked(field: str, text: bytes) -> bytes:
    # What nearly all are costs one look; the rest is looked at closely.
    if text[0] == _OPENING_BRACE and text[-1] == _CLOSING_BRACE and json_text.check(text) is None:
        return text
    repaired, fault = json_text.checked(text)
    if fault is not None or not json_text.is_object(repaired):
        raise invalid(field, "UTF-8 JSON text of an object is expected")
    return repaired.strip()


def _micros(time: Timestamp) -> int | None:
    micros = time.seconds * 1_000_000 + time.nanos // 1_000
    return micros if MIN_INSTANT_US <= micros <= MAX_INSTANT_US else None


def _text(time: Timestamp) -> str:
    """A time as SDKs write it, to microseconds; a tenth of what ``Timestamp.ToJsonString`` costs."""
    if (micros := _micros(time)) is None:
        raise invalid("original_time", "a time between the years 1 and 9999 is expected")
    seconds, rest = divmod(micros, 1_000_000)
    millis, below = divmod(rest, 1_000)
    return f"{_second(seconds)}.{rest:06d}Z" if below else f"{_second(seconds)}.{millis:03d}Z"


@lru_cache(_CACHED_SECONDS)
def _second(seconds: int) -> str:
    """A second in UTC, without its zone. Events of one time share it."""
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
