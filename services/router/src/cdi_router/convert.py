"""Request and response messages ↔ what the router works with; the shape rules of a destination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.event.v1 import event_pb2, outcome_pb2
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi_kernel.faults import InvalidArgument
from cdi_router.domain.destination import DeletionCall, Destination, Webhook
from cdi_router.domain.explanation import Explanation
from cdi_router.domain.retry import RetryPolicy
from cdi_router.ports import Count, DeadRow

EVENT_TYPES: Final = {name.removeprefix("EVENT_TYPE_").lower(): value for name, value in event_pb2.EventType.items() if value}
MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100
MAX_BATCH_EVENTS: Final = 1_000
MAX_CONCURRENCY: Final = 64
MAX_TIMEOUT_SECONDS: Final = 120.0

DELETION_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset({"idempotency-key", "cdi-signature", "content-length", "content-type", "transfer-encoding", "host", "connection"})

Violations = list[tuple[str, str]]


def destination_of(document: destination_pb2.Destination) -> Destination:
    """The destination that a document describes, defaults filled in.

    Raises:
        InvalidArgument: it breaks a rule; every broken one is named.
    """
    wrong: Violations = []
    _check(wrong, "workspace_id", bool(document.workspace_id), "is required")
    _check(wrong, "name", _NAME.fullmatch(document.name) is not None, "1 to 100 letters, digits, spaces, dots, hyphens, underscores")
    for index, spelling in enumerate(document.event_types):
        _check(wrong, f"event_types[{index}]", spelling in EVENT_TYPES, f"one of {', '.join(EVENT_TYPES)}")
    for index, purpose in enumerate(document.purposes):
        _check(wrong, f"purposes[{index}]", bool(purpose), "is empty")
    retry = _retry(document.retry, wrong)
    _check(wrong, "kind", document.WhichOneof("kind") is not None, "is required")
    webhook = _webhook(document.webhook, wrong) if document.HasField("webhook") else Webhook("")
    if wrong:
        text = "; ".join(f"{field}: {rule}" for field, rule in wrong)
        raise InvalidArgument(text, metadata={"field": wrong[0][0]}, field_violations=wrong)
    return Destination(
        workspace_id=document.workspace_id,
        name=document.name,
        webhook=webhook,
        enabled=document.enabled,
        purposes=tuple(dict.fromkeys(document.purposes)),
        event_types=frozenset(EVENT_TYPES[spelling] for spelling in document.event_types),
        event_names=frozenset(document.event_names),
        retry=retry,
        kind=document.WhichOneof("kind") or "",
        version=document.version,
    )


def page_size(asked: int) -> int:
    """Items per page: 0 means 100.

    Raises:
        InvalidArgument: negative or over 1,000.
    """
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidArgument(f"page_size: from 0 to {MAX_PAGE}", metadata={"field": "page_size"})
    return asked or DEFAULT_PAGE


def dead_delivery(row: DeadRow, workspace_id: str) -> destination_pb2.DeadDelivery:
    """A given-up delivery as it is answered."""
    return destination_pb2.DeadDelivery(
        delivery_id=row.delivery_id,
        workspace_id=workspace_id,
        destination=row.destination,
        message_id=row.message_id,
        reason=row.reason,
        response_status=row.response_status,
        response_body=row.response_body,
        attempts=row.attempts,
        first_attempt_time=_timestamp(row.first_attempt_time),
        dead_time=_timestamp(row.dead_time),
        request_body=row.request_body,
    )


def explanation(destination: str, explained: Explanation) -> router_service_pb2.DeliveryExplanation:
    """What became of an event, as it is answered."""
    return router_service_pb2.DeliveryExplanation(
        destination=destination,
        outcome=explained.outcome,
        reason=explained.reason,
        description=explained.description,
        missing_purposes=explained.missing,
        decision_ids=explained.decision_ids,
    )


def count(row: Count) -> outcome_pb2.OutcomeCount:
    """A count as it is answered."""
    outcome = outcome_pb2.Outcome.ValueType(row.outcome)
    return outcome_pb2.OutcomeCount(sink=f"destination:{row.destination}", outcome=outcome, reason=row.reason, events=row.events)


def _retry(policy: destination_pb2.RetryPolicy, wrong: Violations) -> RetryPolicy:
    default = RetryPolicy()
    values = {
        "initial_seconds": policy.initial_seconds or default.initial_seconds,
        "max_seconds": policy.max_seconds or default.max_seconds,
        "give_up_after_seconds": policy.give_up_after_seconds or default.give_up_after_seconds,
    }
    for field, value in values.items():
        # Also false for a NaN.
        _check(wrong, f"retry.{field}", 0.0 < value <= 7 * 86_400.0, "above 0, at most 7 days")
    return RetryPolicy(**values, give_up_after_attempts=policy.give_up_after_attempts or default.give_up_after_attempts)


def _webhook(settings: destination_pb2.Webhook, wrong: Violations) -> Webhook:
    default = Webhook(settings.url)
    batch = settings.max_batch_events or default.max_batch_events
    concurrency = settings.concurrency or default.concurrency
    timeout = settings.timeout_seconds or default.timeout_seconds
    _check(wrong, "webhook.url", _is_http(settings.url), "an http or https address with a host")
    _check(wrong, "webhook.max_batch_events", batch <= MAX_BATCH_EVENTS, f"at most {MAX_BATCH_EVENTS}")
    _check(wrong, "webhook.concurrency", concurrency <= MAX_CONCURRENCY, f"at most {MAX_CONCURRENCY}")
    _check(wrong, "webhook.timeout_seconds", 0.0 < timeout <= MAX_TIMEOUT_SECONDS, f"above 0, at most {MAX_TIMEOUT_SECONDS:g}")
    secret = settings.signing_secret
    _check(wrong, "webhook.signing_secret", not secret or _is_reference(secret), "a reference env:NAME to a name without CDI_")
    _check_headers(settings.headers, wrong)
    deletion = _deletion(settings.deletion, wrong) if settings.HasField("deletion") else None
    return Webhook(settings.url, dict(settings.headers), secret, batch, concurrency, timeout, deletion)


def _deletion(settings: destination_pb2.WebhookDeletion, wrong: Violations) -> DeletionCall:
    method = settings.method or "POST"
    _check(wrong, "webhook.deletion.url", _is_http(settings.url), "an http or https address with a host")
    _check(wrong, "webhook.deletion.method", method in DELETION_METHODS, f"one of {', '.join(DELETION_METHODS)}")
    return DeletionCall(settings.url, method, frozenset(settings.id_types))


def _check_headers(headers: Mapping[str, str], wrong: Violations) -> None:
    for name, value in headers.items():
        field = f"webhook.headers[{name}]"
        _check(wrong, field, _HEADER.fullmatch(name) is not None, "not a name of a header")
        _check(wrong, field, name.lower() not in _OURS, "is set by the router")
        _check(wrong, field, value.isprintable(), "holds control characters")
        _check(wrong, field, not value.startswith("env:") or _is_reference(value), "not a reference env:NAME to a name without CDI_")


def _is_reference(value: str) -> bool:
    """Whether it refers to the environment; the router's own settings cannot be referred to, they would leave with the request."""
    return _REFERENCE.fullmatch(value) is not None and not value.upper().startswith("ENV:CDI_")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check(wrong: Violations, field: str, holds: bool, rule: str) -> None:
    if not holds:
        wrong.append((field, rule))


def _timestamp(moment: datetime) -> Timestamp:
    result = Timestamp()
    result.FromDatetime(moment)
    return result
