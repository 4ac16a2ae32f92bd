"""Logs: one JSON object per line on stderr, fixed event names, trace ids, no personal data.

An exception appears as its type and its frames. Its text is kept only for faults and operating-system errors, whose texts are
ours or name a file or an address: the text of any other exception can quote an event (a driver quotes the offending row).
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from types import TracebackType
from typing import Any

import orjson
import structlog
from opentelemetry import trace
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, Processor

from cdi_kernel.faults import Fault

_FRAMES = 24


def logger(name: str) -> BoundLogger:
    """The log of a module. Event names are fixed words, ``outbox.published``; what varies are fields."""
    made: BoundLogger = structlog.stdlib.get_logger(name)
    return made


def configure_logs(level: str, service: str, instance: str) -> None:
    """Routes structlog and the standard library's logging into one stream of JSON lines on stderr."""

    def process(_: Any, __: str, event: EventDict) -> EventDict:
        event["service"], event["instance"] = service, instance
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        process,
        _trace_ids,
        _exception,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _json],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("asyncio", "grpc", "nats", "opentelemetry", "alembic", "httpx", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _json(_: Any, __: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _trace_ids(_: Any, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _exception(_: Any, __: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else None
    if given is True:
        error = sys.exc_info()[1]
    elif isinstance(given, tuple):
        error = given[1]
    if error is not None:
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> list[Mapping[str, Any]]:
    """An exception and its causes, newest first, without texts that could quote an event."""
    chain: list[Mapping[str, Any]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 5:
        entry: dict[str, Any] = {"type": type(current).__qualname__, "frames": _frames(current.__traceback__)}
        if isinstance(current, (Fault, OSError)):
            entry["text"] = str(current)
        chain.append(entry)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return chain


def _frames(where: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(where)[-_FRAMES:]
    return [f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in frames]
