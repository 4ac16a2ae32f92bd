"""Refusals that only this door has.

Fault
├── Terminal
│   ├── InvalidArgument → MethodNotAllowed     405
│   ├── TooLarge        → HeadTooLarge         431
│   └── PermissionDenied → OriginNotAllowed    403   the page gets no permission to read it either
└── Transient
    ├── RateLimited     → OverRate             429
    └── SlowClient                             408   SDKs send the same batch again
"""

from __future__ import annotations

import math
from collections.abc import Collection

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, InvalidArgument, PermissionDenied, RateLimited, TooLarge, Transient


class MethodNotAllowed(InvalidArgument):
    """The path exists and takes other methods.

    Attributes:
        allowed: the methods that it takes.
    """

    http_status = 405

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__(f"this path takes {' and '.join(sorted(allowed))}", metadata={"field": "method"})
        self.allowed = allowed


class HeadTooLarge(TooLarge):
    """The request line and the headers together are over the limit."""

    http_status = 431


class SlowClient(Transient):
    """The body did not arrive in time."""

    code = "DEADLINE_EXCEEDED"
    http_status = 408


class OriginNotAllowed(PermissionDenied):
    """The page that sends is not among those that the source allows."""


class OverRate(RateLimited):
    """More events than the source's rate allows.

    Attributes:
        reset_seconds: when the same request would be taken, Unix seconds.
    """

    def __init__(self, subject: str, limit: float, wait_seconds: float, now_seconds: float) -> None:
        metadata = {"subject": subject, "limit": f"{limit:g}"}
        super().__init__(
            error_pb2.ERROR_REASON_RATE_LIMITED, f"more than {limit:g} events per second", metadata=metadata, retry_after=wait_seconds
        )
        self.reset_seconds = math.ceil(now_seconds + wait_seconds)


def malformed(message: str) -> Fault:
    """The body is not the JSON that its path asks for."""
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_MALFORMED_PAYLOAD)
