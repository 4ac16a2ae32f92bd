"""``ConsentService``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as service_pb2
from cdi.consent.v1 import consent_service_pb2_grpc
from cdi_consent import convert, convert_pages, convert_states
from cdi_consent.application import Consent
from cdi_consent.asking import Asking
from cdi_consent.domain.decisions import Decision
from cdi_consent.evaluating import Evaluating
from cdi_kernel.faults import Fault
from cdi_runtime.rpc import status_of
from cdi_runtime.telemetry import event_span, instruments

FULL_NAME: Final = service_pb2.DESCRIPTOR.services_by_name["ConsentService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class ConsentServicer(consent_service_pb2_grpc.ConsentServiceServicer):
    """``cdi.consent.v1.ConsentService``."""

    def __init__(self, consent: Consent, evaluating: Evaluating, asking: Asking) -> None:
        self._consent = consent
        self._evaluating = evaluating
        self._asking = asking

    def add_to_server(self, _: object, server: grpc.aio.Server) -> None:
        """Registers all methods, and in the place of ``EvaluateConsent`` the same on bytes."""
        consent_service_pb2_grpc.add_ConsentServiceServicer_to_server(self, server)
        on_bytes = {"EvaluateConsent": grpc.unary_unary_rpc_method_handler(self.EvaluateConsent)}
        server.add_registered_method_handlers(FULL_NAME, on_bytes)  # type: ignore[attr-defined]  # public, missing in the stubs

    async def ApplyPurpose(self, request: service_pb2.ApplyPurposeRequest, context: Context) -> service_pb2.ApplyPurposeResponse:
        purpose, changed = await self._consent.apply_purpose(convert.purpose_of(request.purpose))
        return service_pb2.ApplyPurposeResponse(purpose=convert.purpose_message(purpose), changed=changed)

    async def ListPurposes(self, request: service_pb2.ListPurposesRequest, context: Context) -> service_pb2.ListPurposesResponse:
        size, after = convert_pages.page_size(request.page_size), convert_pages.name_of_token(request.page_token)
        workspace_id = convert.checked_text(request.workspace_id, "workspace_id")
        found = await self._consent.list_purposes(workspace_id, after, size + 1)
        shown = [convert.purpose_message(purpose) for purpose in found[:size]]
        token = convert_pages.name_token(found[size - 1].name) if len(found) > size else ""
        return service_pb2.ListPurposesResponse(purposes=shown, next_page_token=token)

    async def ApplyConsentPolicy(
        self, request: service_pb2.ApplyConsentPolicyRequest, context: Context
    ) -> service_pb2.ApplyConsentPolicyResponse:
        policy, changed = await self._consent.apply_policy(convert_states.policy_of(request.policy))
        return service_pb2.ApplyConsentPolicyResponse(policy=convert_states.policy_message(policy), changed=changed)

    async def GetConsentPolicy(
        self, request: service_pb2.GetConsentPolicyRequest, context: Context
    ) -> service_pb2.GetConsentPolicyResponse:
        policy = self._consent.policy(convert.checked_text(request.workspace_id, "workspace_id"))
        return service_pb2.GetConsentPolicyResponse(policy=convert_states.policy_message(policy))

    async def RecordDecisions(self, request: service_pb2.RecordDecisionsRequest, context: Context) -> service_pb2.RecordDecisionsResponse:
        convert.checked_size(len(request.decisions), "decisions")
        results = await self._consent.record([convert.draft_of(decision) for decision in request.decisions])
        return service_pb2.RecordDecisionsResponse(results=[_result(index, result) for index, result in enumerate(results)])

    async def EvaluateConsent(self, request: bytes, context: Context) -> bytes:  # type: ignore[override]  # see add_to_server
        """On bytes: an object per event, and per answer that it carries, would cost most."""
        started_ns = time.time_ns()
        inputs = convert.inputs_of(request)
        items, sampled = convert.items_of(inputs)
        received_us = convert.receive_times(inputs, started_ns // 1_000)
        response = convert.response_of(await self._evaluating.evaluate(items, received_us))
        instruments.BATCH_EVENTS.record(len(items), stage="consent")
        _trace(sampled, started_ns)
        return response

    async def CheckPurpose(self, request: service_pb2.CheckPurposeRequest, context: Context) -> service_pb2.CheckPurposeResponse:
        people = convert.people_of(request)
        return service_pb2.CheckPurposeResponse(granted=await self._consent.check(request.workspace_id, request.purpose, people))

    async def GetConsent(self, request: service_pb2.GetConsentRequest, context: Context) -> service_pb2.GetConsentResponse:
        who = convert_states.who_of(request)
        if isinstance(who, str):
            states, subjects = await self._asking.of_profile(request.workspace_id, who)
        else:
            states, subjects = await self._asking.of_subjects(request.workspace_id, [who]), [who]
        shown = [convert_states.subject_message(subject) for subject in subjects]
        return service_pb2.GetConsentResponse(purposes=convert_states.state_messages(states), subjects=shown)

    async def ExplainDecision(self, request: service_pb2.ExplainDecisionRequest, context: Context) -> service_pb2.ExplainDecisionResponse:
        workspace_id = convert.checked_text(request.workspace_id, "workspace_id")
        ids = convert_states.decision_ids_of(request)
        states = await self._asking.explain(workspace_id, request.purposes, ids)
        return service_pb2.ExplainDecisionResponse(purposes=convert_states.state_messages(states))

    async def VerifyLedger(self, request: service_pb2.VerifyLedgerRequest, context: Context) -> service_pb2.VerifyLedgerResponse:
        return convert_states.verified_message(await self._asking.verify(*convert_states.chain_of(request)))

    async def ListDecisions(self, request: service_pb2.ListDecisionsRequest, context: Context) -> service_pb2.ListDecisionsResponse:
        size, before = convert_pages.page_size(request.page_size), convert_pages.position_of_token(request.page_token)
        found = await self._consent.list_decisions(convert.subject_of(request), before, size + 1)
        shown = [convert.decision_message(decision) for decision in found[:size]]
        token = convert_pages.position_token(found[size - 1]) if len(found) > size else ""
        return service_pb2.ListDecisionsResponse(decisions=shown, next_page_token=token)


def _result(index: int, result: Decision | Fault) -> service_pb2.RecordResult:
    if isinstance(result, Fault):
        return service_pb2.RecordResult(index=index, status=status_of(result))
    return service_pb2.RecordResult(index=index, decision_id=result.decision_id)


def _trace(sampled: Iterable[convert.Sampled], started_ns: int) -> None:
    """A span for each traced event, as long as the batch that it was part of."""
    for message_id, traceparent in sampled:
        event_span("EvaluateConsent", traceparent, attributes={"cdi.message_id": message_id}, start_time_ns=started_ns).end()
