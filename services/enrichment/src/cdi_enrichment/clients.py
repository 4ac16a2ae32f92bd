"""Consent and identity over gRPC: one call per batch, a deadline on each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cdi.consent.v1 import consent_service_pb2, consent_service_pb2_grpc
from cdi.error.v1 import error_pb2
from cdi.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from cdi_kernel.faults import Internal, Unavailable
from cdi_runtime.rpc import call

DEADLINE_SECONDS: Final = 5.0
"""Until a call is given up and the batch is tried again."""

MAX_INPUTS: Final = 5_000
"""Of one call (consent_service.proto, identity_service.proto)."""

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Above this a batch goes in halves: half of what a channel takes."""

R = TypeVar("R")


class ConsentClient:
    """Asks the consent service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = consent_service_pb2_grpc.ConsentServiceStub(channel)
        self._health = _Health(channel, "consent")

    async def evaluate(self, request: consent_service_pb2.EvaluateConsentRequest) -> Sequence[consent_service_pb2.EvaluatedConsent]:
        """What each event may be used for, in order. Raises ``Unavailable`` while consent is away."""
        inputs = request.inputs
        if not inputs:
            return []
        if _too_large(len(inputs), request.ByteSize()):
            middle = len(inputs) // 2
            first = await self.evaluate(consent_service_pb2.EvaluateConsentRequest(inputs=inputs[:middle]))
            return [*first, *await self.evaluate(consent_service_pb2.EvaluateConsentRequest(inputs=inputs[middle:]))]
        response = await call(self._stub.EvaluateConsent, request, timeout=DEADLINE_SECONDS, peer="consent")
        return _complete(response.results, len(inputs), "consent")

    async def ping(self) -> None:
        """Returns while consent serves; raises a ``Fault`` otherwise."""
        await self._health.ping()


class IdentityClient:
    """Asks the identity service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._health = _Health(channel, "identity")

    async def resolve(self, request: identity_service_pb2.ResolveIdentitiesRequest) -> Sequence[identity_service_pb2.ResolvedIdentity]:
        """The profile of each event, in order. Raises ``Unavailable`` while identity is away."""
        inputs = request.inputs
        if not inputs:
            return []
        if _too_large(len(inputs), request.ByteSize()):
            middle = len(inputs) // 2
            first = await self.resolve(identity_service_pb2.ResolveIdentitiesRequest(inputs=inputs[:middle]))
            return [*first, *await self.resolve(identity_service_pb2.ResolveIdentitiesRequest(inputs=inputs[middle:]))]
        response = await call(self._stub.ResolveIdentities, request, timeout=DEADLINE_SECONDS, peer="identity")
        return _complete(response.identities, len(inputs), "identity")

    async def ping(self) -> None:
        """Returns while identity serves; raises a ``Fault`` otherwise."""
        await self._health.ping()


class _Health:
    def __init__(self, channel: grpc.aio.Channel, peer: str) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)
        self._peer = peer

    async def ping(self) -> None:
        answer = await call(self._stub.Check, health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS, peer=self._peer)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(self._peer, f"{self._peer} is not ready")


def _too_large(inputs: int, size: int) -> bool:
    return inputs > 1 and (inputs > MAX_INPUTS or size > MAX_REQUEST_BYTES)


def _complete(results: Sequence[R], expected: int, peer: str) -> Sequence[R]:
    if len(results) != expected:
        raise Internal(error_pb2.ERROR_REASON_INTERNAL, f"{peer} gave {len(results)} results for {expected} inputs")
    return results
