"""Everything that CDI can say no to, as one tree.

    Fault
    ├── Terminal                    asking again with the same input gives the same answer
    │   ├── InvalidArgument         the request breaks a rule                     INVALID_ARGUMENT    400
    │   ├── Unauthenticated         no or unknown credentials                     UNAUTHENTICATED     401
    │   ├── PermissionDenied        known, but not allowed                        PERMISSION_DENIED   403
    │   ├── NotFound                the named resource does not exist             NOT_FOUND           404
    │   ├── AlreadyExists           it exists with other content                  ALREADY_EXISTS      409
    │   ├── FailedPrecondition      not in this state of the resource             FAILED_PRECONDITION 400
    │   ├── TooLarge                over a size limit                             OUT_OF_RANGE        413
    │   ├── Rejected                an event that a stage turned away             INVALID_ARGUMENT    400
    │   └── Internal                a bug                                         INTERNAL            500
    └── Transient                   the same request may succeed later
        ├── RateLimited             over a rate                                   RESOURCE_EXHAUSTED  429
        └── Unavailable             a dependency does not answer                  UNAVAILABLE         503

A fault is rendered once, at the edge where it leaves the process: as google.rpc.Status over gRPC, as JSON over HTTP, as
a settlement of a bus message, or as the reason of a rejected event. Adapters turn foreign exceptions into faults; nobody else catches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from cdi.error.v1 import error_pb2

Reason: TypeAlias = error_pb2.ErrorReason.ValueType
"""A value of ``cdi.error.v1.ErrorReason``."""


def reason_name(reason: Reason) -> str:
    """The public spelling of a reason: ``ERROR_REASON_TOO_LARGE`` → ``too_large``."""
    return error_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_").lower()


class Fault(Exception):
    """A refusal with a reason that a program can act on.

    Attributes:
        reason: one value of ``cdi.error.v1.ErrorReason``.
        message: one sentence for a person; never holds event content or personal data.
        metadata: the facts that the reason's comment in ``error.proto`` names.
        retry_after: seconds after which asking again makes sense; ``None`` if not known.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def reason_name(self) -> str:
        """The public spelling of the reason, for HTTP bodies, rejected events and metric labels."""
        return reason_name(self.reason)

    def __str__(self) -> str:
        return f"{self.reason_name}: {self.message}"


class Terminal(Fault):
    """Asking again with the same input gives the same answer."""


class Transient(Fault):
    """The same request may succeed later."""

    retryable = True


class InvalidArgument(Terminal):
    """The request breaks a rule of its message.

    Attributes:
        field_violations: pairs of a field path and what is wrong with it.
    """

    code = "INVALID_ARGUMENT"
    http_status = 400

    def __init__(
        self,
        message: str,
        *,
        reason: Reason = error_pb2.ERROR_REASON_INVALID_ARGUMENT,
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(reason, message, metadata=metadata)
        self.field_violations = tuple(field_violations)


class Unauthenticated(Terminal):
    """No credentials, or credentials that nobody has."""

    code = "UNAUTHENTICATED"
    http_status = 401


class PermissionDenied(Terminal):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"
    http_status = 403


class NotFound(Terminal):
    """The named resource does not exist."""

    code = "NOT_FOUND"
    http_status = 404


class AlreadyExists(Terminal):
    """The named resource exists already, with other content."""

    code = "ALREADY_EXISTS"
    http_status = 409


class FailedPrecondition(Terminal):
    """The resource is not in a state that allows this."""

    code = "FAILED_PRECONDITION"
    http_status = 400


class TooLarge(Terminal):
    """A body, batch, event or answer over its limit."""

    code = "OUT_OF_RANGE"
    http_status = 413


class Rejected(Terminal):
    """An event that a stage turned away for good; its reason goes into the REJECTED stream."""

    code = "INVALID_ARGUMENT"
    http_status = 400


class Internal(Terminal):
    """A bug. The message that leaves the process is fixed; the log has the rest under the correlation id."""

    code = "INTERNAL"
    http_status = 500


class RateLimited(Transient):
    """More requests than the limit allows."""

    code = "RESOURCE_EXHAUSTED"
    http_status = 429


class Unavailable(Transient):
    """A part that this service needs does not answer now."""

    code = "UNAVAILABLE"
    http_status = 503

    def __init__(self, dependency: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(
            error_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
            message,
            metadata={"dependency": dependency},
            retry_after=retry_after,
        )
