"""``PrivacyService``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
import orjson

from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.consent.v1 import privacy_service_pb2_grpc
from cdi_consent import convert_privacy as convert
from cdi_consent.convert import checked_text
from cdi_consent.convert_pages import page_size
from cdi_consent.privacy import Privacy
from cdi_kernel.faults import Fault, InvalidArgument
from cdi_runtime.rpc import status_of

Context = grpc.aio.ServicerContext[Any, Any]

PIECE_BYTES: Final = 256 * 1024

FOR_SERVICES: Final = frozenset({"ReportSteps", "SendHoldings"})
"""What other services call; everything else is for privacy officers."""


class PrivacyServicer(privacy_service_pb2_grpc.PrivacyServiceServicer):
    """``cdi.consent.v1.PrivacyService``."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    async def CreatePrivacyRequests(
        self, request: pb.CreatePrivacyRequestsRequest, context: Context | None
    ) -> pb.CreatePrivacyRequestsResponse:
        workspace_id = checked_text(request.workspace_id, "workspace_id")
        people = convert.people_of(workspace_id, request.people)
        regulation = convert.regulation_of(request.regulation)
        results = await self._privacy.create(convert.verb_of(request.verb), people, regulation, request.client_request_id)
        return pb.CreatePrivacyRequestsResponse(results=[_result(place, result) for place, result in enumerate(results)])

    async def GetPrivacyRequest(self, request: pb.GetPrivacyRequestRequest, context: Context | None) -> pb.GetPrivacyRequestResponse:
        file = await self._privacy.get(request.workspace_id, convert.request_id_of(request.request_id))
        return pb.GetPrivacyRequestResponse(request=convert.file_message(file))

    async def ListPrivacyRequests(self, request: pb.ListPrivacyRequestsRequest, context: Context) -> pb.ListPrivacyRequestsResponse:
        size, before = page_size(request.page_size), convert.page_position(request.page_token)
        workspace_id = checked_text(request.workspace_id, "workspace_id")
        found = await self._privacy.page(workspace_id, convert.status_filter(request.status), before, size + 1)
        token = convert.page_token(found[size - 1]) if len(found) > size else ""
        return pb.ListPrivacyRequestsResponse(requests=map(convert.request_message, found[:size]), next_page_token=token)

    async def RetryPrivacyRequest(self, request: pb.RetryPrivacyRequestRequest, context: Context) -> pb.RetryPrivacyRequestResponse:
        file = await self._privacy.retry(request.workspace_id, convert.request_id_of(request.request_id))
        return pb.RetryPrivacyRequestResponse(request=convert.file_message(file))

    async def GetPrivacyReport(self, request: pb.GetPrivacyReportRequest, context: Context) -> pb.GetPrivacyReportResponse:
        found = await self._privacy.report(request.workspace_id, convert.request_id_of(request.request_id))
        return pb.GetPrivacyReportResponse(report=found.report, signature=found.signature, public_key=found.public_key)

    async def DownloadArchive(self, request: pb.DownloadArchiveRequest, context: Context) -> AsyncIterator[pb.DownloadArchiveResponse]:
        async for ready in self._privacy.archive(request.workspace_id, convert.request_id_of(request.request_id)):
            for start in range(0, len(ready), PIECE_BYTES):
                yield pb.DownloadArchiveResponse(piece=ready[start : start + PIECE_BYTES])

    async def ReportSteps(self, request: pb.ReportStepsRequest, context: Context) -> pb.ReportStepsResponse:
        reports = convert.reports_of(request, self._privacy.clock())
        await self._privacy.take(convert.request_id_of(request.request_id), request.service, request.attempt, reports)
        return pb.ReportStepsResponse()

    async def SendHoldings(self, requests: AsyncIterator[pb.SendHoldingsRequest], context: Context) -> pb.SendHoldingsResponse:
        first = await anext(requests, None)
        if first is None:
            raise InvalidArgument("the first message is missing")
        await self._privacy.hold(convert.request_id_of(first.request_id), first.service, _holdings(first, requests))
        return pb.SendHoldingsResponse()


async def _holdings(
    first: pb.SendHoldingsRequest, rest: AsyncIterator[pb.SendHoldingsRequest]
) -> AsyncIterator[tuple[str, Sequence[bytes]]]:
    """The messages that hold rows; the first may be there only to say whose they are."""
    if first.rows:
        yield convert.checked_holding(first), [_row(row) for row in first.rows]
    async for message in rest:
        yield convert.checked_holding(message), [_row(row) for row in message.rows]


def _row(row: bytes) -> bytes:
    """A row in one line. Raises ``InvalidArgument`` for what is no JSON object."""
    try:
        read = orjson.loads(row)
    except orjson.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise InvalidArgument("rows must be JSON objects", metadata={"field": "rows"})
    return orjson.dumps(read) if b"\n" in row or b"\r" in row else row


def _result(place: int, result: str | Fault) -> pb.PrivacyResult:
    if isinstance(result, Fault):
        return pb.PrivacyResult(index=place, status=status_of(result))
    return pb.PrivacyResult(index=place, request_id=result)
