"""The two paths, as functions of a request: ``POST /v1/privacy/requests`` and ``GET /v1/privacy/requests/{id}?workspace=``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf import json_format
from google.protobuf.message import Message

from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi_consent.servicer import PrivacyServicer
from cdi_kernel.faults import Fault, InvalidArgument
from cdi_runtime.rpc import TokenGuard, status_of
from cdi_runtime.service import HttpAnswer, HttpLimits, HttpRequest

PATH: Final = "/v1/privacy/requests"

LIMITS: Final = HttpLimits(head_bytes=16 * 1024, body_bytes=4 * 1024 * 1024, seconds=30.0)
"""Five thousand of the longest ids are less."""


class HttpApp:
    """Answers with what ``PrivacyService`` answers; faults become their HTTP status with google.rpc.Status as JSON."""

    def __init__(self, servicer: PrivacyServicer, guard: TokenGuard) -> None:
        self._servicer = servicer
        self._guard = guard

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer to a request, whatever it is."""
        try:
            self._guard.admit(request.headers.get("authorization", ""))
            return await self._routed(request)
        except Fault as fault:
            return _answer(HTTPStatus(fault.http_status), status_of(fault))

    async def _routed(self, request: HttpRequest) -> HttpAnswer:
        url = urlsplit(request.target)
        if url.path == PATH:
            if request.method != "POST":
                return HttpAnswer(HTTPStatus.METHOD_NOT_ALLOWED)
            return _answer(HTTPStatus.OK, await self._servicer.CreatePrivacyRequests(_read(request.body), None))
        if not url.path.startswith(f"{PATH}/"):
            return HttpAnswer(HTTPStatus.NOT_FOUND)
        if request.method != "GET":
            return HttpAnswer(HTTPStatus.METHOD_NOT_ALLOWED)
        workspace_id = parse_qs(url.query).get("workspace", [""])[0]
        asked = pb.GetPrivacyRequestRequest(workspace_id=workspace_id, request_id=unquote(url.path[len(PATH) + 1 :]))
        return _answer(HTTPStatus.OK, await self._servicer.GetPrivacyRequest(asked, None))


def _answer(status: HTTPStatus, message: Message) -> HttpAnswer:
    """A message as JSON in UTF-8."""
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
    return HttpAnswer(status, text.encode())


def _read(body: bytes) -> pb.CreatePrivacyRequestsRequest:
    try:
        return json_format.Parse(body, pb.CreatePrivacyRequestsRequest())
    except (json_format.ParseError, UnicodeDecodeError):
        # The parser's text would quote the body.
        raise InvalidArgument("the body is no JSON of cdi.consent.v1.CreatePrivacyRequestsRequest") from None
