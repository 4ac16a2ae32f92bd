"""Spans in one SQLite file: written by the receiver, read by `cdi trace` of another process."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from cdi_cli.traces.span import SpanLink, StoredSpan

MAX_SPANS: Final = 200_000
"""The newest spans that are kept."""

_PRUNE_EVERY: Final = 5_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spans (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_span_id TEXT NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, error INTEGER NOT NULL, attributes TEXT NOT NULL,
    links TEXT NOT NULL, message_id TEXT NOT NULL,
    UNIQUE (trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS spans_of_message ON spans (message_id) WHERE message_id <> '';
"""
_COLUMNS: Final = "trace_id, span_id, parent_span_id, service, name, kind, start_ns, end_ns, error, attributes, links"


class SpanStore:
    """The spans of one file. Safe to use from several threads and processes.

    Args:
        file: created if missing; its folder too.
        max_spans: older ones are deleted.
    """

    def __init__(self, file: Path, *, max_spans: int = MAX_SPANS) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._max_spans = max_spans
        self._since_prune = 0
        self._connection = sqlite3.connect(file, check_same_thread=False, timeout=10.0)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)

    def add(self, spans: Sequence[StoredSpan]) -> None:
        """Keep spans; one that is kept already changes nothing."""
        with self._lock, self._connection:
            self._connection.executemany(
                f"INSERT OR IGNORE INTO spans ({_COLUMNS}, message_id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", map(_row, spans)
            )
            self._since_prune += len(spans)
            if self._since_prune >= min(_PRUNE_EVERY, self._max_spans):
                self._since_prune = 0
                last_to_go = "SELECT number FROM spans ORDER BY number DESC LIMIT 1 OFFSET ?"
                self._connection.execute(f"DELETE FROM spans WHERE number <= ({last_to_go})", (self._max_spans,))

    def of_message(self, message_id: str) -> list[StoredSpan]:
        """All spans of the traces in which a span is about the event, by start."""
        traces = "SELECT DISTINCT trace_id FROM spans WHERE message_id = ?"
        return self._select(f"trace_id IN ({traces})", (message_id,))

    def of_trace(self, trace_id: str) -> list[StoredSpan]:
        """The spans of a trace, by start."""
        return self._select("trace_id = ?", (trace_id,))

    def linking_to(self, trace_id: str) -> list[StoredSpan]:
        """The spans of batches that link to a span of the trace, by start."""
        return self._select("links LIKE ?", (f'%"{trace_id}"%',))

    def traced_messages(self, limit: int = 20) -> list[str]:
        """Message ids of the newest traced events."""
        query = "SELECT message_id FROM spans WHERE message_id <> '' GROUP BY message_id ORDER BY max(number) DESC LIMIT ?"
        with self._lock:
            return [str(row[0]) for row in self._connection.execute(query, (limit,))]

    def count(self) -> int:
        """Number of spans kept."""
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM spans").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _select(self, condition: str, arguments: Iterable[str]) -> list[StoredSpan]:
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM spans WHERE {condition} ORDER BY start_ns, number", tuple(arguments)
            ).fetchall()
        return [_span(row) for row in rows]


def _row(span: StoredSpan) -> tuple[object, ...]:
    links = json.dumps([[link.trace_id, link.span_id] for link in span.links])
    return (
        span.trace_id, span.span_id, span.parent_span_id, span.service, span.name, span.kind, span.start_ns, span.end_ns,
        int(span.error), json.dumps(dict(span.attributes)), links, span.message_id,
    )  # fmt: skip


def _span(row: Sequence[Any]) -> StoredSpan:
    trace_id, span_id, parent_span_id, service, name, kind, start_ns, end_ns, error, attributes, links = row
    linked = tuple(SpanLink(*pair) for pair in json.loads(links))
    return StoredSpan(
        trace_id, span_id, parent_span_id, service, name, kind, start_ns, end_ns, bool(error), json.loads(attributes), linked
    )  # fmt: skip
