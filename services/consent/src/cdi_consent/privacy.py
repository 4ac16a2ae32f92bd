"""The use cases of privacy requests: making and following them, taking the services' answers, handing over archives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

import orjson

from cdi.error.v1 import error_pb2
from cdi_consent.domain.archive import Archive, Piece, csv_head, csv_rows
from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.privacy import Report, Status, Verb
from cdi_consent.domain.privacy_report import Signed
from cdi_consent.domain.privacy_request import File, Request, made
from cdi_consent.ports import Clock, FulfilmentStore, HoldingStore, RequestStore
from cdi_consent.reporting import Reporting
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound
from cdi_kernel.ids import uuid7

_NAMESPACE = UUID("0cd10000-7072-4976-8163-790000000001")


@dataclass(frozen=True, slots=True)
class Privacy:
    """Privacy requests, in words of ports. Every call raises ``Unavailable`` when the database does not answer.

    Attributes:
        requests: the requests.
        fulfilment: those under way.
        reporting: takes what services report.
        holdings: what services send for archives.
        clock: now.
        wake: tells the worker that there is something to do.
    """

    requests: RequestStore
    fulfilment: FulfilmentStore
    reporting: Reporting
    holdings: HoldingStore
    clock: Clock
    wake: Callable[[], None]

    async def create(
        self, verb: Verb, people: Sequence[tuple[Subject, ...] | Fault], regulation: str, client_request_id: str
    ) -> list[str | Fault]:
        """Makes a request for each person, all together; gives its id, or why the person was refused.

        With a caller's id the ids of the requests follow from it, so that a repeated call makes nothing twice.
        """
        now_us = self.clock()
        results: list[str | Fault] = []
        requests: list[Request] = []
        for place, person in enumerate(people):
            if isinstance(person, Fault):
                results.append(person)
                continue
            own = uuid5(_NAMESPACE, orjson.dumps((person[0][0], client_request_id, place)).decode()) if client_request_id else uuid7()
            requests.append(made(str(own), verb, regulation, person, now_us))
            results.append(str(own))
        if requests:
            await self.requests.create(requests)
            self.wake()
        return results

    async def get(self, workspace_id: str, request_id: str) -> File:
        """A request. Raises ``NotFound``."""
        return _found(await self.requests.get(workspace_id, request_id))

    async def page(self, workspace_id: str, status: Status | None, before: tuple[int, str], limit: int) -> list[Request]:
        """Requests, newest first."""
        return await self.requests.page(workspace_id, status, before, limit)

    async def retry(self, workspace_id: str, request_id: str) -> File:
        """Goes on with a request. Raises ``NotFound``, and ``FailedPrecondition`` when it is done."""
        before = _found(await self.fulfilment.retry(workspace_id, request_id, self.clock()))
        if before.request.status.is_done:
            raise _not_now("the request is done")
        self.wake()
        return await self.get(workspace_id, request_id)

    async def report(self, workspace_id: str, request_id: str) -> Signed:
        """The signed report. Raises ``NotFound``, and ``FailedPrecondition`` when the request has not ended."""
        found = await self.requests.report(workspace_id, request_id)
        if found is None:
            await self.get(workspace_id, request_id)
            raise _not_now("the request has not ended")
        return found

    async def take(self, request_id: str, service: str, attempt: int, reports: Sequence[Report]) -> None:
        """Takes a service's report.

        Raises:
            NotFound: there is no such request, or it does not ask this service.
            InvalidArgument: the service was never told that attempt.
        """
        taken = await self.reporting.take(request_id, service, attempt, reports)
        if taken is None:
            raise _not_found()
        if not taken:
            raise InvalidArgument("attempt was never told", metadata={"field": "attempt"})
        self.wake()

    async def hold(self, request_id: str, service: str, holdings: AsyncIterator[tuple[str, Sequence[bytes]]]) -> None:
        """Takes what a service holds, as (holding, JSON objects), in the place of what it sent before. Raises ``NotFound``."""
        if not await self.holdings.is_asked(request_id, service):
            raise _not_found()
        holdings_id, parts = str(uuid7()), 0
        async for holding, rows in holdings:
            await self.holdings.add(holdings_id, parts, request_id, service, holding, rows)
            parts += 1
        await self.holdings.put(holdings_id, parts, request_id, service)

    async def archive(self, workspace_id: str, request_id: str) -> AsyncIterator[bytes]:
        """The archive of an access request, as it is made.

        Raises:
            NotFound: there is none, or it has expired.
            FailedPrecondition: not every service has sent what it holds.
        """
        state = await self.holdings.state(workspace_id, request_id)
        if state is None or state.verb is not Verb.ACCESS or (state.status.is_done and not state.is_kept):
            raise _not_found()
        if not state.status.is_done:
            raise _not_now("not every service has sent what it holds")
        archive = Archive()
        after: Piece | None = None
        while first := await self.holdings.pieces(request_id, after, within=False):
            async for piece, ready in self._holding(archive, request_id, first[0]):
                after = piece
                if ready:
                    yield ready
        yield archive.close({"request_id": request_id, "workspace_id": workspace_id})

    async def _holding(self, archive: Archive, request_id: str, first: Piece) -> AsyncIterator[tuple[Piece, bytes]]:
        """Both files of one holding; with each piece of the archive the last piece that was read. The rows are read twice."""
        columns: dict[str, None] = {}
        yield first, archive.begin(f"{first.name}.jsonl")
        async for piece in self._pieces(request_id, first):
            objects = piece.objects()
            columns |= dict.fromkeys(name for one in objects for name in one)
            yield piece, archive.write(piece.rows, len(objects))
        yield first, archive.begin(f"{first.name}.csv") + archive.write(csv_head(columns), 0)
        async for piece in self._pieces(request_id, first):
            objects = piece.objects()
            yield piece, archive.write(csv_rows(columns, objects), len(objects))

    async def _pieces(self, request_id: str, first: Piece) -> AsyncIterator[Piece]:
        """All pieces of a holding, from the first on."""
        yield first
        after = first
        while page := await self.holdings.pieces(request_id, after, within=True):
            for after in page:
                yield after


def _found(file: File | None) -> File:
    if file is None:
        raise _not_found()
    return file


def _not_found() -> NotFound:
    return NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such request", metadata={"resource": "privacy_request"})


def _not_now(message: str) -> FailedPrecondition:
    return FailedPrecondition(error_pb2.ERROR_REASON_INVALID_ARGUMENT, message)
