"""What a kind of destination is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition
from cdi_router.domain.destination import Destination
from cdi_router.ports import Endpoint

REFERENCE = "env:"


class Kind(Protocol):
    """A kind of destination."""

    def open(self, destination: Destination, environment: Mapping[str, str]) -> AbstractAsyncContextManager[Endpoint]:
        """The client of one destination with connections of its own; references to secrets are resolved here, once.

        Raises:
            FailedPrecondition: a reference that the environment does not have.
        """
        ...


def resolve(value: str, environment: Mapping[str, str]) -> str:
    """The value itself, or what a reference ``env:NAME`` refers to.

    Raises:
        FailedPrecondition: the environment has no such name.
    """
    if not value.startswith(REFERENCE):
        return value
    name = value.removeprefix(REFERENCE)
    if name not in environment:
        raise FailedPrecondition(
            error_pb2.ERROR_REASON_NOT_FOUND,
            f"the router's environment has no {name}",
            metadata={"resource": "environment", "name": name},
        )
    return environment[name]
