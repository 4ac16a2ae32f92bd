"""What a decision must be to enter the ledger through RecordDecisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_consent.domain.decisions import MAX_PROOF, MAX_SIGNAL, SUBJECT_TYPES, Decision, Source, Subject, can_be_subject, decision_id
from cdi_consent.domain.purposes import Purposes
from cdi_kernel.faults import Fault, InvalidArgument, NotFound

MAX_AHEAD_US: Final = 300_000_000
"""How far a caller's clock may be ahead. Within it the decision counts as taken now: a decision dated into the future would
outlast a withdrawal made before that moment comes."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision as the caller gave it.

    Attributes:
        subject: whose.
        purpose: the purpose's name.
        granted: yes or no.
        decide_us: when it was taken; ``None`` for now.
        proof: the caller's own reference.
        signal: the caller's own evidence.
    """

    subject: Subject
    purpose: str
    granted: bool
    decide_us: int | None
    proof: str
    signal: bytes = b""


def accepted(draft: Draft, purposes: Purposes, now_us: int) -> Decision | Fault:
    """The decision to record, or why it is refused.

    The same draft with a decide time always gives the same id, so that a repeated request adds nothing.
    """
    workspace_id, subject_type, subject_id = draft.subject
    workspace = purposes.get(workspace_id)
    purpose = workspace.by_name.get(draft.purpose) if workspace is not None else None
    if workspace is None or purpose is None:
        metadata = {"resource": "purpose", "name": draft.purpose}
        return NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such purpose in the workspace", metadata=metadata)
    if subject_type not in SUBJECT_TYPES:
        return _invalid("subject_type", f"must be one of {', '.join(SUBJECT_TYPES)}")
    if not can_be_subject(subject_id):
        return _invalid("subject_id", "is empty, too long or holds NUL")
    if len(draft.proof) > MAX_PROOF or "\0" in draft.proof:
        return _invalid("proof", f"must have at most {MAX_PROOF} characters and no NUL")
    if len(draft.signal) > MAX_SIGNAL:
        return _invalid("signal", f"must have at most {MAX_SIGNAL} bytes")
    asked_us = now_us if draft.decide_us is None else draft.decide_us
    if asked_us > now_us + MAX_AHEAD_US:
        return _invalid("decide_time", "lies in the future", error_pb2.ERROR_REASON_INVALID_TIME)
    identity = decision_id("record", draft.subject, draft.purpose, draft.granted, asked_us, draft.proof)
    return Decision(
        identity,
        draft.subject,
        draft.purpose,
        draft.granted,
        min(asked_us, now_us),
        now_us,
        draft.proof,
        Source.RECORD,
        purpose.version,
        workspace.policy.version,
        draft.signal,
    )


def _invalid(field: str, text: str, reason: error_pb2.ErrorReason.ValueType = error_pb2.ERROR_REASON_INVALID_ARGUMENT) -> Fault:
    return InvalidArgument(f"{field} {text}", reason=reason, metadata={"field": field}, field_violations=[(field, text)])
