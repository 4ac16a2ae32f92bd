"""Consent and identity over gRPC: one call per batch, a deadline on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cdi.consent.v1 import consent_service_pb2
from cdi.error.v1 import error_pb2
from cdi.identity.v1 import identity_service_pb2, rules_pb2
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_enrichment.domain import wire
from cdi_enrichment.ports import Evaluated
from cdi_kernel.faults import Internal, Unavailable
from cdi_runtime.rpc import call

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceAsyncStub

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
        method = consent_service_pb2.DESCRIPTOR.services_by_name["ConsentService"].methods_by_name["EvaluateConsent"]
        self._evaluate = _Batches(channel, method, consent_service_pb2.EvaluateConsentResponse.FromString, "consent")
        self._health = _Health(channel, "consent")

    async def evaluate(self, inputs: Sequence[bytes]) -> Evaluated:
        """What each event may be used for, in order. Raises ``Unavailable`` while consent is away."""
        answers = await self._evaluate.ask(inputs)
        generations = [answer.tombstone_generation for answer in answers if answer.HasField("tombstone_generation")]
        results = answers[0].results if len(answers) == 1 else list(chain.from_iterable(answer.results for answer in answers))
        self._evaluate.check(len(results), len(inputs))
        return Evaluated(results, min(generations, default=None))

    async def ping(self) -> None:
        """Returns while consent serves; raises a ``Fault`` otherwise."""
        await self._health.ping()


class IdentityClient:
    """Asks the identity service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        method = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ResolveIdentities"]
        self._resolve = _Batches(channel, method, _resolved, "identity")
        self._stub: IdentityServiceAsyncStub = IdentityServiceStub(channel)
        self._health = _Health(channel, "identity")

    async def resolve(self, inputs: Sequence[bytes], tombstones: int | None) -> Sequence[bytes]:
        """The profile of each event, in order, serialized.

        Raises:
            Unavailable: while identity is away, or somebody was erased since consent judged the events by these tombstones.
        """
        judged = identity_service_pb2.ResolveIdentitiesRequest(tombstone_generation=tombstones).SerializeToString()
        results = list(chain.from_iterable(await self._resolve.ask(inputs, judged)))
        self._resolve.check(len(results), len(inputs))
        return results

    async def rules(self, workspace_id: str) -> rules_pb2.IdentityRules:
        """The rules of a workspace. Raises ``Unavailable`` while identity is away."""
        request = identity_service_pb2.GetIdentityRulesRequest(workspace_id=workspace_id)
        return (await call(self._stub.GetIdentityRules, request, timeout=DEADLINE_SECONDS, peer="identity")).rules

    async def ping(self) -> None:
        """Returns while identity serves; raises a ``Fault`` otherwise."""
        await self._health.ping()


class _Batches(Generic[R]):
    """An RPC whose request is one repeated field, given as bytes: a request built only to be serialized would cost twice as much.

    Args:
        channel: to the peer.
        method: the RPC.
        read: takes the response's bytes apart.
        peer: the service's name, for faults.
    """

    def __init__(self, channel: grpc.aio.Channel, method: MethodDescriptor, read: Callable[[bytes], R], peer: str) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        self._method: grpc.aio.UnaryUnaryMultiCallable[bytes, R] = channel.unary_unary(path, None, read)
        self._peer = peer

    async def ask(self, inputs: Sequence[bytes], rest: bytes = b"") -> Sequence[R]:
        """The answers, in order. A batch that is too large for one call goes in halves; an empty one needs none.

        Args:
            inputs: of the repeated field.
            rest: the other fields, the same in each request.
        """
        if not inputs:
            return []
        if len(inputs) > 1 and (len(inputs) > MAX_INPUTS or sum(map(len, inputs)) > MAX_REQUEST_BYTES):
            middle = len(inputs) // 2
            return [*await self.ask(inputs[:middle], rest), *await self.ask(inputs[middle:], rest)]
        return [await call(self._method, b"".join((*inputs, rest)), timeout=DEADLINE_SECONDS, peer=self._peer)]

    def check(self, results: int, inputs: int) -> None:
        """Raises ``Internal`` unless there is a result for each input."""
        if results != inputs:
            raise Internal(error_pb2.ERROR_REASON_INTERNAL, f"{self._peer} gave {results} results for {inputs} inputs")


def _resolved(answer: bytes) -> Sequence[bytes]:
    return wire.each(answer, identity_service_pb2.ResolveIdentitiesResponse.FromString(answer).identities)


class _Health:
    def __init__(self, channel: grpc.aio.Channel, peer: str) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)
        self._peer = peer

    async def ping(self) -> None:
        answer = await call(self._stub.Check, health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS, peer=self._peer)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(self._peer, f"{self._peer} is not ready")
