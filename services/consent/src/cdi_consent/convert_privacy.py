"""Privacy requests ↔ messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.consent.v1 import consent_service_pb2, privacy_pb2
from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.error.v1 import error_pb2
from cdi_consent.convert import checked_text, invalid
from cdi_consent.convert_pages import name_of_token, name_token
from cdi_consent.domain.decisions import Subject, can_be_subject, instant
from cdi_consent.domain.privacy import DEADLINE_DAYS, REPORTED, Report, Status, Step, Verb
from cdi_consent.domain.privacy_request import File, Request
from cdi_consent.domain.tombstones import Digest
from cdi_kernel.clock import MAX_INSTANT_US
from cdi_kernel.faults import InvalidArgument, NotFound

MAX_IDS: Final = 5_000
"""Ids, and so people, in one call."""

MAX_STEPS: Final = 1_000
"""Stores in one report."""

MAX_ROWS: Final = 1_000
MAX_ROWS_BYTES: Final = 256 * 1024
"""Of one message of holdings. A single row may be larger."""

NEWEST: Final = (MAX_INSTANT_US, "ffffffff-ffff-ffff-ffff-ffffffffffff")
_TYPE: Final = re.compile(r"[a-z0-9_.$-]{1,100}")
_HOLDING: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MAX_COUNT: Final = 2**63 - 1
_MAX_TEXT: Final = 1_000


def verb_of(number: int) -> Verb:
    """Raises ``InvalidArgument`` for what is no verb."""
    if number not in Verb._value2member_map_:
        raise invalid("verb", "must be a verb")
    return Verb(number)


def regulation_of(text: str) -> str:
    """Raises ``InvalidArgument``."""
    if (text or "gdpr") not in DEADLINE_DAYS:
        raise invalid("regulation", f"must be one of {', '.join(DEADLINE_DAYS)}")
    return text or "gdpr"


def people_of(workspace_id: str, people: Sequence[pb.PrivacyPerson]) -> list[tuple[Subject, ...] | InvalidArgument]:
    """The ids of each person, or why they name nobody. Raises ``InvalidArgument`` for none or too many."""
    if not people or sum(max(1, len(person.subjects)) for person in people) > MAX_IDS:
        raise invalid("people", f"must be some, with at most {MAX_IDS} ids in all")
    return [_person(workspace_id, person) for person in people]


def _person(workspace_id: str, person: pb.PrivacyPerson) -> tuple[Subject, ...] | InvalidArgument:
    if not person.subjects:
        return invalid("subjects", "must name an id")
    if not all(_TYPE.fullmatch(one.type) and can_be_subject(one.id) for one in person.subjects):
        return invalid("subjects", "hold an id that is empty, too long or holds NUL, or a type that is none")
    return tuple((workspace_id, one.type, one.id) for one in person.subjects)


def request_id_of(text: str) -> str:
    """A request's id; what is no UUID is nobody's. Raises ``NotFound``."""
    try:
        return str(UUID(text))
    except ValueError:
        raise not_found() from None


def not_found() -> NotFound:
    """There is no such request."""
    return NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such request", metadata={"resource": "privacy_request"})


def status_filter(number: int) -> Status | None:
    """Which requests are listed; ``None`` for all. Raises ``InvalidArgument``."""
    if number and number not in Status._value2member_map_:
        raise invalid("status", "must be a status")
    return Status(number) if number else None


def reports_of(request: pb.ReportStepsRequest, now_us: int) -> list[Report]:
    """What a service's stores did. Raises ``InvalidArgument``."""
    if len(request.steps) > MAX_STEPS:
        raise invalid("steps", f"must be at most {MAX_STEPS}")
    if request.attempt < 1:
        raise invalid("attempt", "must be the order's")
    return [_report(request, step, now_us) for step in request.steps]


def _report(request: pb.ReportStepsRequest, step: privacy_pb2.PrivacyStep, now_us: int) -> Report:
    if step.status not in map(int, REPORTED):
        raise invalid("steps.status", "must be FINISHED, NOT_SUPPORTED, FAILED or RUNNING")
    store = checked_text(step.store, "steps.store")[:_MAX_TEXT]
    detail = step.detail[:_MAX_TEXT].replace("\0", "")
    return Report(request.service, store, request.attempt, Status(step.status), min(step.count, _MAX_COUNT), detail, now_us)


def checked_holding(message: pb.SendHoldingsRequest) -> str:
    """The holding's name, which becomes a file's. Raises ``InvalidArgument``."""
    if not _HOLDING.fullmatch(message.holding):
        raise invalid("holding", "must be a name of letters, digits, '_', '-' and '.'")
    if len(message.rows) > MAX_ROWS or (len(message.rows) > 1 and sum(map(len, message.rows)) > MAX_ROWS_BYTES):
        raise invalid("rows", f"must be at most {MAX_ROWS} or {MAX_ROWS_BYTES} bytes")
    return message.holding


def request_message(request: Request, steps: Iterable[Step] = (), digests: Iterable[Digest] = ()) -> privacy_pb2.PrivacyRequest:
    """A request as it is."""
    message = privacy_pb2.PrivacyRequest(
        request_id=request.request_id,
        workspace_id=request.workspace_id,
        verb=privacy_pb2.PrivacyVerb.ValueType(request.verb),
        subjects=map(_subject, request.subjects),
        status=privacy_pb2.PrivacyStatus.ValueType(request.status),
        steps=map(_step, steps),
        create_time=timestamp(request.create_us),
        deadline_time=timestamp(request.deadline_us),
        regulation=request.regulation,
        subject_digests=sorted(digest.hex() for digest in digests),
    )
    if request.finish_us is not None:
        message.finish_time.CopyFrom(timestamp(request.finish_us))
    return message


def file_message(file: File) -> privacy_pb2.PrivacyRequest:
    """A request with its steps."""
    return request_message(file.request, file.steps, file.digests)


def order_message(request: Request, attempt: int, services: Iterable[str], generation: int) -> privacy_pb2.PrivacyOrder:
    """What services are told."""
    return privacy_pb2.PrivacyOrder(
        request_id=request.request_id,
        workspace_id=request.workspace_id,
        verb=privacy_pb2.PrivacyVerb.ValueType(request.verb),
        subjects=map(_subject, dict.fromkeys((*request.subjects, *request.people))),
        profile_ids=request.profile_ids,
        order_time=timestamp(request.order_us or request.create_us),
        at_destinations=request.verb.at_destinations,
        attempt=attempt,
        services=services,
        tombstone_generation=generation,
    )


def page_token(request: Request) -> str:
    """The token that continues after a request."""
    return name_token(f"{request.create_us}/{request.request_id}")


def page_position(token: str) -> tuple[int, str]:
    """Where a page begins. Raises ``InvalidArgument``."""
    if not token:
        return NEWEST
    create_us, _, request_id = name_of_token(token).partition("/")
    try:
        return instant(0, int(create_us) * 1_000), str(UUID(request_id))
    except ValueError:
        raise invalid("page_token", "is not from an earlier answer") from None


def timestamp(micros: int) -> Timestamp:
    """An instant."""
    made = Timestamp()
    made.FromMicroseconds(micros)
    return made


def _subject(subject: Subject) -> consent_service_pb2.Subject:
    return consent_service_pb2.Subject(type=subject[1], id=subject[2])


def _step(step: Step) -> privacy_pb2.PrivacyStep:
    message = privacy_pb2.PrivacyStep(
        service=step.service,
        store=step.store,
        status=privacy_pb2.PrivacyStatus.ValueType(step.status),
        count=step.counted,
        detail=step.detail,
        attempts=step.attempts,
    )
    if step.report_us:
        message.report_time.CopyFrom(timestamp(step.report_us))
    return message
