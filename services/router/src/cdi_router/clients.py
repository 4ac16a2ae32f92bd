"""The consent service, as the router asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import consent_service_pb2_grpc
from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi_kernel.faults import Fault
from cdi_privacy import PrivacyClient
from cdi_router.application.deletions import Report
from cdi_router.ports import Allowed, Standings, Subject
from cdi_runtime.rpc import call
from cdi_runtime.telemetry import logger

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub

log = logger(__name__)

MAX_INPUTS: Final = 5_000
"""Of one EvaluateConsent (consent_service.proto)."""


PAGE: Final = 1_000


class ConsentClient:
    """``Consent`` and ``PurposeReader`` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, timeout_seconds: float) -> None:
        self._stub: ConsentServiceAsyncStub = consent_service_pb2_grpc.ConsentServiceStub(channel)
        self._timeout = timeout_seconds

    async def allowed(self, subjects: Sequence[Subject]) -> Mapping[Subject, Allowed]:
        """See ``Consent``: EvaluateConsent without preferences, so nothing is recorded."""
        allowed: dict[Subject, Allowed] = {}
        for start in range(0, len(subjects), MAX_INPUTS):
            part = subjects[start : start + MAX_INPUTS]
            inputs = [_input(subject) for subject in part]
            request = pb.EvaluateConsentRequest(inputs=inputs)
            response = await call(self._stub.EvaluateConsent, request, timeout=self._timeout, peer="consent")
            results = (
                Allowed(frozenset(result.granted_purposes), tuple(result.decision_ids), result.suppressed) for result in response.results
            )
            allowed |= dict(zip(part, results, strict=True))
        return allowed

    async def needed(self, workspace_id: str) -> Mapping[str, tuple[str, ...]]:
        """See ``PurposeReader``."""
        needed: dict[str, list[str]] = {}
        token = ""
        while True:
            request = pb.ListPurposesRequest(workspace_id=workspace_id, page_size=PAGE, page_token=token)
            response = await call(self._stub.ListPurposes, request, timeout=self._timeout, peer="consent")
            for purpose in response.purposes:
                for destination in purpose.destinations:
                    needed.setdefault(destination, []).append(purpose.name)
            token = response.next_page_token
            if not token:
                return {destination: tuple(sorted(names)) for destination, names in needed.items()}


def reporting(client: PrivacyClient) -> Report:
    """Reports what became of delete calls; a request that consent does not know any more needs no report."""

    async def report(standings: Standings) -> None:
        try:
            await client.report(PrivacyOrder(request_id=standings.request_id, attempt=standings.attempt), standings.steps)
        except Fault as fault:
            if fault.retryable:
                raise
            log.warning("deletions.report_refused", reason=fault.reason_name, attempt=standings.attempt)

    return report


def _input(subject: Subject) -> pb.ConsentInput:
    workspace_id, user_id, anonymous_id, region, received_us = subject
    asked = pb.ConsentInput(workspace_id=workspace_id, user_id=user_id, anonymous_id=anonymous_id, region=region)
    asked.received_time.FromMicroseconds(received_us)
    return asked
