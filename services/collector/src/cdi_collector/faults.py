"""Refusals that only an HTTP door has.

Fault
├── Terminal
│   ├── InvalidArgument → MethodNotAllowed     405
│   └── TooLarge        → HeadTooLarge         431
└── Transient
└── SlowClient                             408   SDKs send the same batch again
"""

from __future__ import annotations

from collections.abc import Collection

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Fault, InvalidArgument, TooLarge, Transient


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


def malformed(message: str) -> Fault:
    """The body is not the JSON that its path asks for."""
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_MALFORMED_PAYLOAD)
