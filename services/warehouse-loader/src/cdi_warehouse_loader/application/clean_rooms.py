"""Clean rooms: documents, paying, answering, the log.

A query is paid first, in a write of its own; then it is answered; then the answer is stored; then it leaves. Whatever ends the process in
between, epsilon was spent for every answer that anybody saw. A query that was paid and has no answer yet is answered when it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cdi.error.v1 import error_pb2
from cdi_kernel.clock import Clock
from cdi_kernel.faults import FailedPrecondition, NotFound, PermissionDenied, RateLimited, Unauthenticated
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.application.serving import MAX_ANSWER_BYTES
from cdi_warehouse_loader.domain import aggregates, clean_room, release
from cdi_warehouse_loader.domain.aggregates import AggregateQuery, Plan
from cdi_warehouse_loader.domain.clean_room import MAX_GROUPS, CleanRoom, Partner
from cdi_warehouse_loader.domain.ledger import Budget, Entry, Outcome, check_budget
from cdi_warehouse_loader.domain.release import Answer
from cdi_warehouse_loader.ports import CleanRooms as Ledger
from cdi_warehouse_loader.ports import Noise, QueryLimits, Warehouse

NEWEST: Final = (1 << 63) - 1
"""Above every query id."""

MAX_WAITING: Final = 32
"""Calls that may wait for their turn in the thread that loads."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the digest of the token, and whether it administers."""

    digest: str
    administers: bool


@dataclass(frozen=True, slots=True)
class Room:
    """Names a clean room."""

    workspace_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answered query.

    Attributes:
        entry: in the ledger, with the answer.
        spent: what this call cost, in millionths.
        budget: of the partner, after it.
    """

    entry: Entry
    spent: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class _Paid:
    entry: Entry
    plan: Plan
    minimum: int
    new: bool
    budget: Budget


class CleanRooms:
    """What partners and administrators ask.

    Args:
        access: the warehouse.
        noise: of the answers.
        clock: says which period it is.
        query_seconds: time that one query may take.
    """

    def __init__(self, access: Access, noise: Noise, clock: Clock, query_seconds: float) -> None:
        self._access = access
        self._noise = noise
        self._clock = clock
        self._limits = QueryLimits(MAX_GROUPS + 1, MAX_ANSWER_BYTES, query_seconds)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def apply(self, wanted: CleanRoom) -> tuple[CleanRoom, bool]:
        """Makes the clean room be as given; the document as stored, and whether anything changed.

        Raises:
            InvalidArgument: a field breaks its rule.
        """

        def work(warehouse: Warehouse) -> tuple[CleanRoom, bool]:
            stored = _rooms(warehouse).document(wanted.workspace_id, wanted.name)
            room = clean_room.succeed(wanted, stored)
            if room == stored:
                return room, False
            warehouse.ensure_tables(room.schema)
            _rooms(warehouse).put_document(room)
            return room, True

        return await self._in_turn(work)

    async def query(self, caller: Caller, named: Room, query: AggregateQuery) -> Answered:
        """Pays and answers a query; the same one in the same period has the answer of its first time, for nothing.

        Raises:
            Unauthenticated: no token of a partner, or there is no such clean room.
            InvalidArgument: it asks for what the document does not declare.
            RateLimited: the budget of the period does not suffice.
            FailedPrecondition: the conditions leave out too few people; the table or a column is not there yet.
            TooLarge: over a limit. It stays paid.
        """
        paid = await self._in_turn(lambda warehouse: self._pay(warehouse, caller, named, query))
        entry = paid.entry
        if entry.answer is None:
            answer = await self._access.read(lambda warehouse: self._answer(warehouse, paid, query))
            entry = await self._access.write(lambda warehouse: _rooms(warehouse).settle(entry.query_id, answer, self._clock.now_us()))
        if entry.outcome is Outcome.REFUSED:
            raise _too_few_outside(paid.minimum)
        return Answered(entry, entry.epsilon if paid.new else 0, paid.budget)

    async def log(self, caller: Caller, named: Room, partner: str, before: int, limit: int) -> tuple[Sequence[Entry], bool]:
        """Entries of the ledger, newest first, with ids below ``before``, and whether there are more.

        Raises:
            Unauthenticated: the token is nobody's.
            PermissionDenied: a partner asks for another one's.
            NotFound: there is no such clean room.
        """

        def work(warehouse: Warehouse) -> Sequence[Entry]:
            _, own = _seen(warehouse, caller, named, partner)
            return _rooms(warehouse).log(named.workspace_id, named.name, own, before, limit + 1)

        entries = await self._in_turn(work)
        return entries[:limit], len(entries) > limit

    async def budget(self, caller: Caller, named: Room, partner: str) -> Budget:
        """What a partner has spent in this period.

        Raises:
            Unauthenticated: the token is nobody's.
            PermissionDenied: a partner asks for another one's.
            NotFound: there is no such clean room, or no such partner.
        """

        def work(warehouse: Warehouse) -> Budget:
            room, own = _seen(warehouse, caller, named, partner)
            found = next((each for each in room.partners if each.name == own), None)
            if found is None:
                raise _not_found("partner", own)
            return _budget(warehouse, room, found, self._clock.now_us())

        return await self._in_turn(work)

    async def _in_turn(self, work: Callable[[Warehouse], T]) -> T:
        """One after the other: however many calls come, a load waits for at most one of them.

        Raises:
            RateLimited: too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise RateLimited(error_pb2.ERROR_REASON_RATE_LIMITED, "too many calls are waiting", retry_after=1.0)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._access.write(work)
        finally:
            self._waiting -= 1

    def _pay(self, warehouse: Warehouse, caller: Caller, named: Room, query: AggregateQuery) -> _Paid:
        """In the one thread that writes: nobody else pays between the look at the budget and the payment."""
        ledger, now_us = _rooms(warehouse), self._clock.now_us()
        room = ledger.document(named.workspace_id, named.name)
        partner = room.partner_of(caller.digest) if room else None
        if room is None or partner is None:
            raise Unauthenticated(error_pb2.ERROR_REASON_PERMISSION_DENIED, "this needs a token of one of the clean room's partners")
        plan = aggregates.plan(query, room, lambda table: warehouse.catalog.get(room.schema, {}).get(table, {}))
        budget = _budget(warehouse, room, partner, now_us)
        wanted = Entry(0, room.workspace_id, room.name, room.version, partner.name, now_us, query.text, query.epsilon)
        known = ledger.find(wanted, budget.start_us)
        if known is None:
            check_budget(budget, query.epsilon, now_us)
            entry = ledger.add(wanted)
            return _Paid(entry, plan, room.minimum_group_size, True, _budget(warehouse, room, partner, now_us))
        if known.answer is not None:
            ledger.repeat(known.query_id)
        return _Paid(known, plan, room.minimum_group_size, False, budget)

    def _answer(self, warehouse: Warehouse, paid: _Paid, query: AggregateQuery) -> Answer:
        plan = paid.plan
        totals = _rooms(warehouse).totals(plan, self._limits)
        noised = {
            measure: self._noise.laplace(
                release.vector(plan, measure, totals.groups, totals.outside), plan.sensitivity(measure), plan.share
            )
            for measure in plan.measures
        }
        return release.release(plan, query.aggregates, paid.minimum, noised)


def _budget(warehouse: Warehouse, room: CleanRoom, partner: Partner, now_us: int) -> Budget:
    start_us, end_us = room.period(now_us)
    spent = _rooms(warehouse).spent(room.workspace_id, room.name, partner.name, start_us)
    return Budget(partner.name, partner.epsilon, spent, start_us, end_us)


def _seen(warehouse: Warehouse, caller: Caller, named: Room, partner: str) -> tuple[CleanRoom, str]:
    """The clean room and the partner that a caller may look at; an administrator at all."""
    room = _rooms(warehouse).document(named.workspace_id, named.name)
    own = room.partner_of(caller.digest) if room else None
    if own is None and not caller.administers:
        raise Unauthenticated(error_pb2.ERROR_REASON_PERMISSION_DENIED, "this needs an admin token, or one of a partner's")
    if room is None:
        raise _not_found("clean room", named.name)
    if own is None or caller.administers:
        return room, partner
    if partner not in {"", own.name}:
        raise PermissionDenied(error_pb2.ERROR_REASON_PERMISSION_DENIED, "a partner sees what is its own")
    return room, own.name


def _not_found(resource: str, name: str) -> NotFound:
    return NotFound(error_pb2.ERROR_REASON_NOT_FOUND, f"there is no such {resource}", metadata={"resource": resource, "name": name})


def _too_few_outside(minimum: int) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.ERROR_REASON_GROUP_TOO_SMALL,
        "the conditions leave out too few people, or nobody: leave them away, or ask for a smaller part",
        metadata={"minimum_group_size": str(minimum)},
    )


def _rooms(warehouse: Warehouse) -> Ledger:
    if warehouse.clean_rooms is None:
        raise FailedPrecondition(
            error_pb2.ERROR_REASON_NOT_FOUND, "only an embedded warehouse has clean rooms", metadata={"resource": "clean_room"}
        )
    return warehouse.clean_rooms
