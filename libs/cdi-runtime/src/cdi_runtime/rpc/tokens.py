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
        self.admit(_authorization(context))

    def admit(self, given: str) -> None:
        """Raises ``Unauthenticated`` for an ``authorization`` without one of the tokens."""
        if not self.holds(_digest(given)):
            raise Unauthenticated(error_pb2.ERROR_REASON_PERMISSION_DENIED, "administration needs one of its tokens")

    def holds(self, digest: str) -> bool:
        """Whether it is the digest of one of the tokens. Every one is compared, so that the time tells nothing."""
        known = [hmac.compare_digest(digest.encode(), each) for each in self._hashes]
        return any(known)


def token_digest(context: Context) -> str:
    """SHA-256, in hexadecimal, of the token that a call carries; that of nothing when it has none."""
    return _digest(_authorization(context))


def _authorization(context: Context) -> str:
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "authorization"), "")


def _digest(authorization: str) -> str:
    token = authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
    return sha256(token.encode()).hexdigest()
