"""The HTTP port for operators: ``/livez``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import orjson

from cdi_runtime.service.context import ServiceContext
from cdi_runtime.service.http import HttpAnswer, HttpLimits, HttpRequest, serve_http
from cdi_runtime.telemetry import prometheus_text

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def serve_ops(context: ServiceContext, address: str) -> AsyncIterator[str]:
    """Serves the three paths on ``host:port`` while the block runs; yields the bound address. Raises as ``serve_http``."""

    async def answering(request: HttpRequest) -> HttpAnswer:
        return answer(context, request)

    async with serve_http(address, answering, HttpLimits()) as bound:
        yield bound


def answer(context: ServiceContext, request: HttpRequest) -> HttpAnswer:
    """The answer to one request."""
    if request.method not in ("GET", "HEAD"):
        return HttpAnswer(HTTPStatus.METHOD_NOT_ALLOWED)
    route = _ROUTES.get(request.target.partition("?")[0])
    if route is None:
        return HttpAnswer(HTTPStatus.NOT_FOUND)
    found = route(context)
    return found if request.method == "GET" else found._replace(body=b"")


def _livez(_: ServiceContext) -> HttpAnswer:
    return HttpAnswer(HTTPStatus.OK)


def _readyz(context: ServiceContext) -> HttpAnswer:
    reasons = context.readiness.reasons()
    return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, orjson.dumps(reasons))


def _metrics(_: ServiceContext) -> HttpAnswer:
    return HttpAnswer(HTTPStatus.OK, prometheus_text(), _PROMETHEUS)


_ROUTES: dict[str, Callable[[ServiceContext], HttpAnswer]] = {"/livez": _livez, "/readyz": _readyz, "/metrics": _metrics}
