"""Requests and responses ↔ domain, and the messages on CONSENT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.consent.v1 import consent_service_pb2 as service_pb2
from cdi.consent.v1 import purpose_pb2
from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import ANONYMOUS_ID, MAX_SIGNAL, SUBJECT_TYPES, USER_ID, Subject, can_be_subject, instant, proof_of
from cdi_consent.domain.evaluation import Item, Preferences, Signals
from cdi_consent.domain.policy import DefaultPolicy, RegionalDefaults
from cdi_consent.domain.purposes import Outcome, Purpose, WarehouseRule
from cdi_consent.domain.recording import Draft
from cdi_consent.evaluating import Judged
from cdi_kernel.faults import InvalidArgument
from cdi_kernel.shallow import shallow

MAX_INPUTS: Final = 5_000
"""Events or decisions in one request."""

MAX_SUBJECTS: Final = 10_000
"""Ids of all people of one ``CheckPurposeRequest``."""


_Request: Final = shallow(service_pb2.EvaluateConsentRequest, 2)

_ANY_ID: Final = str(UUID(int=0))
_BETWEEN_IDS: Final = service_pb2.EvaluatedConsent(decision_ids=[_ANY_ID]).SerializeToString().decode().removesuffix(_ANY_ID)
"""What protobuf writes in front of a decision id: its field and its length, the same for all, because an id is a UUID as text."""


class Sampled(NamedTuple):
    """An event that is traced: its message id and its caller's traceparent."""

    message_id: str
    traceparent: str


class InputView(Protocol):
    """A ``ConsentInput`` whose sub-messages are bytes."""

    workspace_id: str
    message_id: str
    user_id: str
    anonymous_id: str
    preferences: Sequence[bytes]
    event_time: bytes
    traceparent: str
    has_preferences: bool
    signals: Sequence[bytes]
    region: str
    received_time: bytes

    def HasField(self, field_name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a sub-message is there."""
        ...


def inputs_of(wire: bytes) -> Sequence[InputView]:
    """The events of a serialized ``EvaluateConsentRequest``.

    Raises:
        InvalidArgument: it is none, or holds more than ``MAX_INPUTS``.
    """
    try:
        request: Any = _Request.FromString(wire)
    except DecodeError as error:
        raise InvalidArgument("this is no EvaluateConsentRequest") from error
    # A copy: iterating over the field itself ends with an exception, which costs more.
    inputs: list[InputView] = request.inputs[:]
    checked_size(len(inputs), "inputs")
    return inputs


def items_of(inputs: Iterable[InputView]) -> tuple[list[Item], list[Sampled]]:
    """The events of a batch, and which of them are traced. Runs for every event: reads each field once."""
    items: list[Item] = []
    sampled: list[Sampled] = []
    for given in inputs:
        workspace_id = given.workspace_id
        subjects: tuple[Subject, ...] = ()
        # ``can_be_subject`` decides; nearly always there is nothing to decide.
        if (user_id := given.user_id) and can_be_subject(user_id):
            subjects = ((workspace_id, USER_ID, user_id),)
        if (anonymous_id := given.anonymous_id) and can_be_subject(anonymous_id):
            subjects = (*subjects, (workspace_id, ANONYMOUS_ID, anonymous_id))
        preferences = given.preferences[:]
        region = given.region
        if preferences or given.has_preferences:
            # Only then: looking whether there are signals costs more than judging the event.
            answers = _preferences(tuple(preferences)) if preferences else ()
            signals = _signals(given.signals)
            event_us, proof = _micros_of(given.event_time), proof_of(given.message_id)
            items.append(Item(workspace_id, subjects, answers, event_us, proof, True, region, signals))
        elif region:
            items.append(Item(workspace_id, subjects, (), 0, "", False, region))
        else:
            items.append(Item(workspace_id, subjects))
        if traceparent := given.traceparent:
            sampled.append(Sampled(given.message_id, traceparent))
    return items, sampled


def receive_times(inputs: Sequence[InputView], now_us: int) -> Callable[[int], int]:
    """When the event at a place was received. Read only when it is asked for, which is seldom."""

    def received_us(place: int) -> int:
        given = inputs[place]
        return _micros_of(given.received_time) if given.HasField("received_time") else now_us

    return received_us


@lru_cache(maxsize=512)
def _preferences(given: tuple[bytes, ...]) -> Preferences:
    """The answers that an event carries. Most people answer alike."""
    preferences = map(service_pb2.CategoryPreference.FromString, given)
    return tuple([(preference.category, preference.granted) for preference in preferences])


def _signals(given: Iterable[bytes]) -> Signals:
    """The signals that an event carries, those of a length that is read and kept."""
    signals = map(service_pb2.ConsentSignal.FromString, given)
    return tuple([(signal.kind, signal.raw) for signal in signals if len(signal.raw) <= MAX_SIGNAL])


def written(outcome: Outcome) -> bytes:
    """One result as a field of ``EvaluateConsentResponse``, as bytes: an object per event would cost more than judging it.

    In protobuf, messages written one after the other are one message with the results of all.
    """
    ids = outcome.decision_ids
    before_ids, after_ids = _around_ids(
        outcome.granted_purposes, len(ids), outcome.linkable, outcome.dropped_columns, outcome.region, outcome.suppressed
    )
    # Without ids the same bytes for all: they are remembered for very many people.
    return b"".join((before_ids, _BETWEEN_IDS.join(ids).encode(), after_ids)) if ids else before_ids


def response_of(judged: Judged) -> bytes:
    """The whole ``EvaluateConsentResponse``."""
    rest = service_pb2.EvaluateConsentResponse(tombstone_generation=judged.generation)
    return b"".join((*judged.answers, rest.SerializeToString()))


@lru_cache(maxsize=1_024)
def _around_ids(
    granted: tuple[str, ...], ids: int, linkable: bool, dropped: tuple[str, ...], region: str, suppressed: bool
) -> tuple[bytes, bytes]:
    """What protobuf writes before and after so many decision ids, in an answer that holds one result."""
    result = service_pb2.EvaluatedConsent(
        granted_purposes=granted,
        decision_ids=[_ANY_ID] * ids,
        linkable=linkable,
        dropped_columns=dropped,
        region=region,
        suppressed=suppressed,
    )
    written = service_pb2.EvaluateConsentResponse(results=[result]).SerializeToString()
    all_ids = _BETWEEN_IDS.join([_ANY_ID] * ids).encode()
    # Behind the ids stands only the rest of the result.
    result.ClearField("granted_purposes")
    result.ClearField("decision_ids")
    start = len(written) - len(result.SerializeToString()) - len(all_ids)
    if not ids:
        return written, b""
    return written[:start], written[start + len(all_ids) :]


def people_of(request: service_pb2.CheckPurposeRequest) -> list[list[Subject]]:
    """The ids of each person that can have decided something.

    Raises:
        InvalidArgument: too many people or ids, or a workspace or purpose that cannot be one.
    """
    workspace_id = checked_text(request.workspace_id, "workspace_id")
    checked_text(request.purpose, "purpose")
    checked_size(len(request.people), "people")
    if sum(len(person.subjects) for person in request.people) > MAX_SUBJECTS:
        raise invalid("people.subjects", f"must be at most {MAX_SUBJECTS} in all")
    return [
        [(workspace_id, one.type, one.id) for one in person.subjects if one.type in SUBJECT_TYPES and can_be_subject(one.id)]
        for person in request.people
    ]


def draft_of(message: purpose_pb2.Decision) -> Draft:
    """A decision to record."""
    decide_us = _micros(message.decide_time) if message.HasField("decide_time") else None
    subject = message.workspace_id, message.subject_type, message.subject_id
    return Draft(subject, message.purpose, message.granted, decide_us, message.proof, message.signal)


def decision_message(line: Line) -> purpose_pb2.Decision:
    """A line of the ledger."""
    message = purpose_pb2.Decision()
    _write(line, message)
    return message


def announcement(lines: Sequence[Line]) -> purpose_pb2.DecisionsRecorded:
    """What goes onto CONSENT: lines of one workspace, in the order of recording."""
    message = purpose_pb2.DecisionsRecorded()
    for line in lines:
        _write(line, message.decisions.add())
    return message


def purpose_of(message: purpose_pb2.Purpose) -> Purpose:
    """A purpose to apply; its version is ours to set. Not yet checked."""
    return Purpose(
        message.workspace_id,
        message.name,
        message.description,
        tuple(message.categories),
        default_of(message.default_policy),
        message.required_for_linking,
        legal_basis=message.legal_basis if message.legal_basis in purpose_pb2.LegalBasis.values() else 0,
        destinations=tuple(message.destinations),
        columns=tuple(message.columns),
        regional_defaults=regional_of(message.regional_defaults),
        warehouses=tuple(WarehouseRule(rule.warehouse, rule.rows, tuple(rule.columns)) for rule in message.warehouses),
    )


def purpose_message(purpose: Purpose) -> purpose_pb2.Purpose:
    """A purpose as it is."""
    return purpose_pb2.Purpose(
        workspace_id=purpose.workspace_id,
        name=purpose.name,
        description=purpose.description,
        categories=purpose.categories,
        default_policy=purpose_pb2.DefaultPolicy.ValueType(purpose.default_policy),
        required_for_linking=purpose.required_for_linking,
        version=purpose.version,
        legal_basis=purpose_pb2.LegalBasis.ValueType(purpose.legal_basis),
        destinations=purpose.destinations,
        columns=purpose.columns,
        regional_defaults=regional_messages(purpose.regional_defaults),
        warehouses=[purpose_pb2.WarehouseRule(**rule._asdict()) for rule in purpose.warehouses],
    )


def default_of(number: int) -> DefaultPolicy:
    """A default policy; a number that is none of ours says nothing."""
    return DefaultPolicy(number) if number in purpose_pb2.DefaultPolicy.values() else DefaultPolicy.UNSPECIFIED


def regional_of(messages: Iterable[purpose_pb2.RegionalDefault]) -> RegionalDefaults:
    """Exceptions by region. Not yet checked."""
    return tuple((message.region, default_of(message.default_policy)) for message in messages)


def regional_messages(defaults: RegionalDefaults) -> list[purpose_pb2.RegionalDefault]:
    """Exceptions by region as they are."""
    numbers = [(region, purpose_pb2.DefaultPolicy.ValueType(policy)) for region, policy in defaults]
    return [purpose_pb2.RegionalDefault(region=region, default_policy=number) for region, number in numbers]


def checked_size(size: int, field: str) -> None:
    """Raises ``InvalidArgument`` when a request holds more than ``MAX_INPUTS``."""
    if size > MAX_INPUTS:
        raise invalid(field, f"must be at most {MAX_INPUTS}")


def checked_text(text: str, field: str) -> str:
    """A text that Postgres can compare. Raises ``InvalidArgument`` if it is empty or holds NUL."""
    if not text or "\0" in text:
        raise invalid(field, "must not be empty or hold NUL")
    return text


def subject_of(request: service_pb2.ListDecisionsRequest) -> Subject:
    """Whose ledger is asked for. Raises ``InvalidArgument`` if it can be nobody's."""
    return checked_subject(request.workspace_id, request.subject_type, request.subject_id, "subject_")


def checked_subject(workspace_id: str, subject_type: str, subject_id: str, prefix: str) -> Subject:
    """A subject whose type and id can be one. Raises ``InvalidArgument``, naming the field behind ``prefix``."""
    if subject_type not in SUBJECT_TYPES:
        raise invalid(f"{prefix}type", f"must be one of {', '.join(SUBJECT_TYPES)}")
    if not can_be_subject(subject_id):
        raise invalid(f"{prefix}id", "is empty, too long or holds NUL")
    return checked_text(workspace_id, "workspace_id"), subject_type, subject_id


def invalid(field: str, text: str) -> InvalidArgument:
    """A field of a request that breaks a rule."""
    return InvalidArgument(f"{field} {text}", metadata={"field": field}, field_violations=[(field, text)])


def _micros_of(timestamp: bytes) -> int:
    return _micros(Timestamp.FromString(timestamp))


def _micros(timestamp: Timestamp) -> int:
    return instant(timestamp.seconds, timestamp.nanos)


def _write(line: Line, message: purpose_pb2.Decision) -> None:
    """Fills a new message. Fields are set one by one: at half the cost of the constructor's arguments."""
    decision = line.decision
    message.decision_id = decision.decision_id
    message.workspace_id, message.subject_type, message.subject_id = decision.subject
    message.purpose = decision.purpose
    message.granted = decision.granted
    _write_instant(decision.decide_us, message.decide_time)
    _write_instant(decision.record_us, message.record_time)
    message.proof = decision.proof
    message.source = purpose_pb2.DecisionSource.ValueType(decision.source)
    message.purpose_version = decision.purpose_version
    message.policy_version = decision.policy_version
    message.signal = decision.signal
    message.chain_position, message.previous_hash, message.hash = line.link
    message.salt, message.commitment = line.seal


def _write_instant(micros: int, timestamp: Timestamp) -> None:
    seconds, rest = divmod(micros, 1_000_000)
    timestamp.seconds = seconds
    timestamp.nanos = rest * 1_000
