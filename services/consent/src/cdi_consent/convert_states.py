"""Policies, states and verifications ↔ messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cdi.consent.v1 import consent_service_pb2 as service_pb2
from cdi.consent.v1 import purpose_pb2
from cdi_consent.asking import Verified
from cdi_consent.convert import checked_subject, checked_text, decision_message, default_of, regional_messages, regional_of
from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.policy import ConsentPolicy
from cdi_consent.domain.states import State
from cdi_kernel.faults import InvalidArgument

MAX_DECISIONS: Final = 1_000
"""Decisions in one question."""

_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def who_of(request: service_pb2.GetConsentRequest) -> str | Subject:
    """Whose consent is asked for: a profile id or a subject. Raises ``InvalidArgument``."""
    workspace_id = checked_text(request.workspace_id, "workspace_id")
    if request.WhichOneof("who") == "subject":
        return checked_subject(workspace_id, request.subject.type, request.subject.id, "subject.")
    return checked_text(request.profile_id, "profile_id")


def chain_of(request: service_pb2.VerifyLedgerRequest) -> tuple[str, Subject | None]:
    """What is to be verified: a workspace, and one of its subjects or none. Raises ``InvalidArgument``."""
    workspace_id = checked_text(request.workspace_id, "workspace_id")
    if not request.HasField("subject"):
        return workspace_id, None
    return workspace_id, checked_subject(workspace_id, request.subject.type, request.subject.id, "subject.")


def decision_ids_of(request: service_pb2.ExplainDecisionRequest) -> list[str]:
    """The decisions that are asked for; what is no id is left out. Raises ``InvalidArgument`` when they are too many."""
    if len(request.decision_ids) > MAX_DECISIONS:
        raise InvalidArgument(f"decision_ids must be at most {MAX_DECISIONS}", metadata={"field": "decision_ids"})
    return [one for one in request.decision_ids if _UUID.fullmatch(one)]


def subject_message(subject: Subject) -> service_pb2.Subject:
    """A subject, without its workspace."""
    return service_pb2.Subject(type=subject[1], id=subject[2])


def state_messages(states: Iterable[State]) -> list[purpose_pb2.PurposeState]:
    """What holds for purposes."""
    return [
        purpose_pb2.PurposeState(
            purpose=state.purpose.name,
            granted=state.granted,
            decisions=[decision_message(line) for line in state.lines],
            default_policy=purpose_pb2.DefaultPolicy.ValueType(state.default_policy),
            purpose_version=state.purpose.version,
            policy_version=state.policy_version,
            conflict=state.conflict,
        )
        for state in states
    ]


def verified_message(verified: Verified) -> service_pb2.VerifyLedgerResponse:
    """What a verification has seen."""
    breaks = [
        service_pb2.LedgerBreak(
            subject=subject_message(one.subject),
            chain_position=one.position,
            decision_id=one.decision_id,
            flaw=service_pb2.LedgerFlaw.ValueType(one.flaw),
        )
        for one in verified.breaks
    ]
    return service_pb2.VerifyLedgerResponse(lines=verified.lines, subjects=verified.chains, breaks=breaks)


def policy_of(message: purpose_pb2.ConsentPolicy) -> ConsentPolicy:
    """A policy to apply; its version is ours to set. Not yet checked."""
    return ConsentPolicy(message.workspace_id, default_of(message.default_policy), regional_of(message.regional_defaults))


def policy_message(policy: ConsentPolicy) -> purpose_pb2.ConsentPolicy:
    """A policy as it is."""
    return purpose_pb2.ConsentPolicy(
        workspace_id=policy.workspace_id,
        default_policy=purpose_pb2.DefaultPolicy.ValueType(policy.default_policy),
        regional_defaults=regional_messages(policy.regional_defaults),
        version=policy.version,
    )
