"""Requests and responses of ``CleanRoomService`` to and from the domain."""

from __future__ import annotations

from typing import Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.warehouse.v1 import clean_room_pb2, clean_room_service_pb2
from cdi_kernel.faults import InvalidArgument
from cdi_warehouse_loader.application.clean_rooms import NEWEST, Answered, Room
from cdi_warehouse_loader.convert import DEFAULT_PAGE, DEFAULT_SCHEMA, MAX_PAGE
from cdi_warehouse_loader.domain.aggregates import Aggregate, AggregateQuery, Boolean, Condition, Function, Numbers, Test, Texts, Times
from cdi_warehouse_loader.domain.clean_room import MICRO, CleanRoom, Key, Number, Partner, Table
from cdi_warehouse_loader.domain.ledger import Budget, Entry, Outcome

DEFAULT_GROUP_SIZE: Final = 20
DEFAULT_PERIOD_DAYS: Final = 30
DEFAULT_STEP: Final = 0.01

_FUNCTIONS: Final = {
    clean_room_service_pb2.FUNCTION_COUNT: Function.COUNT,
    clean_room_service_pb2.FUNCTION_PEOPLE: Function.PEOPLE,
    clean_room_service_pb2.FUNCTION_SUM: Function.SUM,
    clean_room_service_pb2.FUNCTION_AVERAGE: Function.AVERAGE,
}
_OUTCOMES: Final = {
    Outcome.PAID: clean_room_service_pb2.QUERY_OUTCOME_PAID,
    Outcome.ANSWERED: clean_room_service_pb2.QUERY_OUTCOME_ANSWERED,
    Outcome.REFUSED: clean_room_service_pb2.QUERY_OUTCOME_REFUSED,
}


class _Named(Protocol):
    """A request about a clean room."""

    workspace_id: str
    clean_room: str


def room_of(request: _Named) -> Room:
    """Which clean room a request is about."""
    return Room(request.workspace_id, request.clean_room)


def document_of(room: clean_room_pb2.CleanRoom) -> CleanRoom:
    """A clean room as its document, defaults filled in."""
    return CleanRoom(
        room.workspace_id,
        room.name,
        room.schema or DEFAULT_SCHEMA,
        tuple(sorted(set(room.purposes))),
        tuple(map(_table_of, room.tables)),
        room.minimum_group_size or DEFAULT_GROUP_SIZE,
        room.period_days or DEFAULT_PERIOD_DAYS,
        tuple(Partner(partner.name, tuple(partner.token_hashes), _millionths(partner.epsilon)) for partner in room.partners),
    )


def clean_room_of(room: CleanRoom) -> clean_room_pb2.CleanRoom:
    """A document as the resource."""
    partners = [
        clean_room_pb2.Partner(name=partner.name, token_hashes=partner.token_hashes, epsilon=partner.epsilon / MICRO)
        for partner in room.partners
    ]
    return clean_room_pb2.CleanRoom(
        workspace_id=room.workspace_id,
        name=room.name,
        schema=room.schema,
        purposes=room.purposes,
        tables=map(_declared, room.tables),
        minimum_group_size=room.minimum_group_size,
        period_days=room.period_days,
        partners=partners,
        version=room.version,
    )


def query_of(request: clean_room_service_pb2.QueryAggregatesRequest) -> AggregateQuery:
    """What is asked.

    Raises:
        InvalidArgument: a function or a test is not set, or epsilon is no number.
    """
    if any(aggregate.function not in _FUNCTIONS for aggregate in request.aggregates):
        raise InvalidArgument("an aggregate has no function", field_violations=[("aggregates", "each needs a function")])
    return AggregateQuery(
        request.table,
        tuple(Aggregate(_FUNCTIONS[aggregate.function], aggregate.column) for aggregate in request.aggregates),
        tuple(request.group_by),
        tuple(Condition(condition.column, _test_of(condition)) for condition in request.conditions),
        _millionths(request.epsilon),
    )


def answer_of(answered: Answered) -> clean_room_service_pb2.QueryAggregatesResponse:
    """An answer."""
    entry = answered.entry
    response = clean_room_service_pb2.QueryAggregatesResponse(
        query_id=str(entry.query_id),
        epsilon_spent=answered.spent / MICRO,
        epsilon_left=answered.budget.left / MICRO,
        answer_time=_timestamp(entry.answered_us),
    )
    if entry.answer is not None:
        response.suppressed_groups = entry.answer.suppressed
        for group in entry.answer.groups:
            values = [clean_room_service_pb2.AggregateValue(value=value.value, accuracy=value.accuracy) for value in group.values]
            response.groups.add(keys=group.keys, values=values)
    return response


def page_of(request: clean_room_service_pb2.ListQueriesRequest) -> tuple[int, int]:
    """Below which id a page begins, and how many entries it holds.

    Raises:
        InvalidArgument: a negative size, or a token that is none.
    """
    if request.page_size < 0:
        raise InvalidArgument("a page has no negative size", field_violations=[("page_size", "must not be negative")])
    token = request.page_token
    if token and not (token.isascii() and token.isdigit() and len(token) < len(str(NEWEST))):
        raise InvalidArgument("this is no page token", field_violations=[("page_token", "comes from the last answer")])
    return int(token) if token else NEWEST, min(request.page_size or DEFAULT_PAGE, MAX_PAGE)


def logged_of(entry: Entry) -> clean_room_service_pb2.LoggedQuery:
    """An entry of the log."""
    return clean_room_service_pb2.LoggedQuery(
        query_id=str(entry.query_id),
        partner=entry.partner,
        query_time=_timestamp(entry.asked_us),
        query=entry.query,
        epsilon=entry.epsilon / MICRO,
        outcome=_OUTCOMES[entry.outcome],
        groups=entry.groups,
        repeats=entry.repeats,
        clean_room_version=entry.version,
    )


def budget_of(budget: Budget) -> clean_room_service_pb2.GetBudgetResponse:
    """A budget."""
    return clean_room_service_pb2.GetBudgetResponse(
        partner=budget.partner,
        epsilon=budget.epsilon / MICRO,
        spent=budget.spent / MICRO,
        period_start_time=_timestamp(budget.start_us),
        period_end_time=_timestamp(budget.end_us),
    )


def _table_of(table: clean_room_pb2.CleanRoomTable) -> Table:
    return Table(
        table.name,
        tuple(Key(key.column, tuple(key.values)) for key in table.keys),
        tuple(Number(number.column, number.lower, number.upper, number.step or DEFAULT_STEP) for number in table.numbers),
        tuple(table.filters),
        table.max_groups_per_person or 1,
        table.max_rows_per_person or 1,
    )


def _declared(table: Table) -> clean_room_pb2.CleanRoomTable:
    return clean_room_pb2.CleanRoomTable(
        name=table.name,
        keys=[clean_room_pb2.KeyColumn(column=key.column, values=key.values) for key in table.keys],
        numbers=[
            clean_room_pb2.NumberColumn(column=number.column, lower=number.lower, upper=number.upper, step=number.step)
            for number in table.numbers
        ],
        filters=table.filters,
        max_groups_per_person=table.max_groups,
        max_rows_per_person=table.max_rows,
    )


def _test_of(condition: clean_room_pb2.Condition) -> Test:
    match condition.WhichOneof("test"):
        case "texts":
            return Texts(tuple(condition.texts.values))
        case "boolean":
            return Boolean(condition.boolean)
        case "numbers":
            numbers = condition.numbers
            return Numbers(numbers.at_least if numbers.HasField("at_least") else None, numbers.below if numbers.HasField("below") else None)
        case "times":
            times = condition.times
            return Times(
                times.at_least.ToMicroseconds() if times.HasField("at_least") else None,
                times.below.ToMicroseconds() if times.HasField("below") else None,
            )
        case _:
            raise InvalidArgument("a condition has no test", field_violations=[("conditions", "each needs a test")])


def _millionths(epsilon: float) -> int:
    """Epsilon in millionths; what is beyond every limit, or no number, is one above it."""
    return round(epsilon * MICRO) if -1.0 < epsilon < 1_000.0 else 1_000 * MICRO


def _timestamp(microseconds: int) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(microseconds)
    return made
