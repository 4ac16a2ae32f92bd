"""The consent service, as the router asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import consent_service_pb2_grpc
from cdi_router.ports import Subject
from cdi_runtime.rpc import call

MAX_INPUTS: Final = 5_000
"""Of one EvaluateConsent (consent_service.proto)."""


class ConsentClient:
    """``Consent`` over gRPC: one EvaluateConsent without preferences, so nothing is recorded."""

    def __init__(self, channel: grpc.aio.Channel, timeout_seconds: float) -> None:
        self._stub = consent_service_pb2_grpc.ConsentServiceStub(channel)
        self._timeout = timeout_seconds

    async def granted(self, subjects: Sequence[Subject]) -> Mapping[Subject, frozenset[str]]:
        """See ``Consent``."""
        granted: dict[Subject, frozenset[str]] = {}
        for start in range(0, len(subjects), MAX_INPUTS):
            part = subjects[start : start + MAX_INPUTS]
            request = pb.EvaluateConsentRequest(
                inputs=[pb.ConsentInput(workspace_id=w, user_id=user, anonymous_id=anonymous) for w, user, anonymous in part]
            )
            response = await call(self._stub.EvaluateConsent, request, timeout=self._timeout, peer="consent")
            results = (frozenset(result.granted_purposes) for result in response.results)
            granted |= dict(zip(part, results, strict=True))
        return granted
