"""Faults as ``google.rpc.Status`` and back (AIP-193): ErrorInfo always, and others when there is something to say."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from cdi.error.v1 import error_pb2
from cdi_kernel import faults
from cdi_kernel.faults import Fault

DOMAIN = "cdi"
DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata key of https://grpc.io/docs/guides/error/#richer-error-model."""

_PREFIX = "ERROR_REASON_"
_BY_CODE: dict[str, type[Fault]] = {
    "UNAUTHENTICATED": faults.Unauthenticated,
    "PERMISSION_DENIED": faults.PermissionDenied,
    "NOT_FOUND": faults.NotFound,
    "ALREADY_EXISTS": faults.AlreadyExists,
    "FAILED_PRECONDITION": faults.FailedPrecondition,
    "OUT_OF_RANGE": faults.TooLarge,
    "RESOURCE_EXHAUSTED": faults.RateLimited,
    "INTERNAL": faults.Internal,
}
# UNIMPLEMENTED: the peer is older than its caller, as in the middle of an upgrade.
_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "UNIMPLEMENTED"})


def status_of(fault: Fault) -> status_pb2.Status:
    """A fault as the status of an RPC or of one item of a batch."""
    info = error_details_pb2.ErrorInfo(
        reason=error_pb2.ErrorReason.Name(fault.reason).removeprefix(_PREFIX), domain=DOMAIN, metadata=fault.metadata
    )
    status = status_pb2.Status(code=code_pb2.Code.Value(fault.code), message=fault.message)
    status.details.add().Pack(info)
    violations = getattr(fault, "field_violations", ())
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        status.details.add().Pack(bad)
    if isinstance(fault, faults.RateLimited):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=fault.metadata.get("subject", ""), description=fault.message)
        status.details.add().Pack(quota)
    if fault.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(fault.retry_after * 1_000_000_000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def fault_of(status: status_pb2.Status, *, peer: str = "peer") -> Fault:
    """The fault that a status stands for.

    Args:
        status: as made by ``status_of``, or by any other server (then without a reason of ours).
        peer: who answered, for the ``dependency`` of an ``Unavailable``.
    """
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after: float | None = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1_000_000_000
    code = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "UNKNOWN"
    message = status.message or code
    if code in _TRANSIENT:
        return faults.Unavailable(info.metadata.get("dependency") or peer, message, retry_after=retry_after)
    reason = _reason(info.reason)
    metadata = dict(info.metadata)
    if code == "INVALID_ARGUMENT":
        return faults.InvalidArgument(
            message,
            reason=reason if info.reason else error_pb2.ERROR_REASON_INVALID_ARGUMENT,
            metadata=metadata,
            field_violations=[(violation.field, violation.description) for violation in bad.field_violations],
        )
    kind = _BY_CODE.get(code, faults.Internal)
    return kind(reason, message, metadata=metadata, retry_after=retry_after)


def fault_of_error(error: grpc.aio.AioRpcError, *, peer: str) -> Fault:
    """The fault behind a failed call: from the details if the server sent some, otherwise from the code."""
    for key, value in _pairs(error.trailing_metadata()):
        if key == DETAILS_KEY:
            return fault_of(status_pb2.Status.FromString(value), peer=peer)
    number: int = error.code().value[0]
    return fault_of(status_pb2.Status(code=number, message=error.details() or error.code().name), peer=peer)


def _reason(name: str) -> faults.Reason:
    full = _PREFIX + name
    if full in error_pb2.ErrorReason.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        return error_pb2.ErrorReason.Value(full)
    return error_pb2.ERROR_REASON_INTERNAL


def _pairs(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata] if metadata else []
