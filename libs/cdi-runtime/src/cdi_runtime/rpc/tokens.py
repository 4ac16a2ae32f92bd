"""Administration is for those who have a token: there is one role, whose tokens may do everything that their service administers."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, TypeAlias

import grpc

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Unauthenticated

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_BEARER: Final = "bearer "


class TokenGuard:
    """Lets a call pass that carries one of the tokens in its metadata, as ``authorization: Bearer <token>``.

    Args:
        hashes: SHA-256 of the tokens in hexadecimal. None: no call passes.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        self._hashes = [digest.lower().encode() for digest in hashes]

    def __call__(self, context: Context) -> None:
        """Raises ``Unauthenticated`` for a call without one of the tokens."""
        self.admit(next((str(value) for key, value in context.invocation_metadata() or () if key == "authorization"), ""))

    def admit(self, given: str) -> None:
        """Raises ``Unauthenticated`` for an ``authorization`` without one of the tokens."""
        token = given[len(_BEARER) :].strip() if given[: len(_BEARER)].lower() == _BEARER else ""
        digest = sha256(token.encode()).hexdigest().encode()
        # Every one is compared, so that the time tells nothing.
        known = [hmac.compare_digest(digest, each) for each in self._hashes]
        if not any(known):
            raise Unauthenticated(error_pb2.ERROR_REASON_PERMISSION_DENIED, "administration needs one of its tokens")
