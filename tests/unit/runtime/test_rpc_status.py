"""A fault survives the way over the wire."""

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from cdi.error.v1 import error_pb2
from cdi_kernel import faults
from cdi_kernel.faults import Fault
from cdi_runtime.rpc import fault_of, status_of

FAULTS = [
    faults.InvalidArgument("bad", field_violations=[("events[3].name", "is empty")], metadata={"field": "name"}),
    faults.Unauthenticated(error_pb2.ERROR_REASON_UNKNOWN_WRITE_KEY, "unknown write key"),
    faults.PermissionDenied(error_pb2.ERROR_REASON_PERMISSION_DENIED, "no"),
    faults.NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no profile", metadata={"resource": "profile"}),
    faults.AlreadyExists(error_pb2.ERROR_REASON_ALREADY_EXISTS, "there"),
    faults.FailedPrecondition(error_pb2.ERROR_REASON_SOURCE_DISABLED, "off", metadata={"source": "web"}),
    faults.TooLarge(error_pb2.ERROR_REASON_TOO_LARGE, "big", metadata={"limit": "500"}),
    faults.Internal(error_pb2.ERROR_REASON_INTERNAL, "internal error", metadata={"correlation_id": "ab"}),
    faults.RateLimited(error_pb2.ERROR_REASON_RATE_LIMITED, "slow down", retry_after=1.5),
    faults.Unavailable("database", "away", retry_after=0.25),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_round_trip(fault: Fault) -> None:
    back = fault_of(status_pb2.Status.FromString(status_of(fault).SerializeToString()))
    assert type(back) is type(fault)
    assert (back.reason, back.message, back.metadata, back.retry_after) == (
        fault.reason,
        fault.message,
        fault.metadata,
        fault.retry_after,
    )
    assert getattr(back, "field_violations", ()) == getattr(fault, "field_violations", ())


def test_the_reason_is_in_our_domain_and_without_prefix() -> None:
    info = error_details_pb2.ErrorInfo()
    status_of(FAULTS[3]).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NOT_FOUND", "cdi")


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"])
def test_a_foreign_transient_status_is_retryable(code: str) -> None:
    assert fault_of(status_pb2.Status(code=code_pb2.Code.Value(code)), peer="consent").retryable


@pytest.mark.parametrize("status", [status_pb2.Status(code=99), status_pb2.Status(code=code_pb2.DATA_LOSS)])
def test_an_unknown_status_is_internal(status: status_pb2.Status) -> None:
    assert type(fault_of(status)) is faults.Internal


def test_a_reason_of_a_newer_peer_is_not_a_crash() -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="x")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVENTED_LATER", domain="cdi"))
    assert isinstance(fault_of(status), faults.NotFound)
