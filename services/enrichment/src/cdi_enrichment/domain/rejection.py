"""Rejections: events that will reach no sink, with all that is needed to send them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2, rejected_event_pb2
from cdi_enrichment.domain.claims import Place
from cdi_kernel.faults import Fault, Reason, reason_name
from cdi_kernel.topology import StreamName

FailureType: TypeAlias = rejected_event_pb2.FailureType.ValueType

MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""Of the event that a rejection carries; what is longer is cut."""

STAGE: Final = "enrichment"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an event was turned away.

    Attributes:
        failure_type: the class, after Snowplow's taxonomy.
        reason: one value of ``cdi.error.v1.ErrorReason``.
        description: one sentence without event content.
        violation_paths: JSON pointers to what broke the plan.
    """

    failure_type: FailureType
    reason: Reason
    description: str
    violation_paths: Sequence[str] = ()

    @property
    def reason_name(self) -> str:
        """The public spelling of the reason."""
        return reason_name(self.reason)


def of_fault(fault: Fault) -> Rejection:
    """The rejection of an event that the pipeline could not process. The texts of unexpected errors may quote it: they stay here."""
    known = fault.reason in (error_pb2.ERROR_REASON_MALFORMED_PAYLOAD, error_pb2.ERROR_REASON_INVALID_ENCODING)
    return Rejection(
        rejected_event_pb2.FAILURE_TYPE_ENRICHMENT_FAILURE,
        fault.reason if known else error_pb2.ERROR_REASON_POISON_EVENT,
        fault.message if known else "the event could not be processed and was taken out of its batch",
    )


def rejected_event(
    event: event_pb2.Event, place: Place, rejection: Rejection, *, version: str, rejected_time: Timestamp
) -> rejected_event_pb2.RejectedEvent:
    """The record of a rejection; its id is the same whenever the message comes again."""
    payload = event.SerializeToString()
    return rejected_event_pb2.RejectedEvent(
        rejection_id=f"{StreamName.COLLECTED}-{place.sequence}-{place.position}",
        workspace_id=event.workspace_id,
        source_id=event.source_id,
        message_id=event.message_id,
        type=event_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower(),
        name=event.name,
        failure_type=rejection.failure_type,
        reason=rejection.reason_name,
        description=rejection.description,
        stage=STAGE,
        stage_version=version,
        received_time=event.received_time if event.HasField("received_time") else None,
        rejected_time=rejected_time,
        payload=payload[:MAX_PAYLOAD_BYTES],
        payload_truncated=len(payload) > MAX_PAYLOAD_BYTES,
        violation_paths=rejection.violation_paths,
    )
