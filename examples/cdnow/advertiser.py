"""The advertiser's webhook: an HTTP endpoint of this process that answers 503 for a while."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

UNAVAILABLE_SECONDS: Final = 8.0
"""How long it is down, from the first request on."""


class Advertiser:
    """Takes events on a free port of 127.0.0.1 and remembers their message ids.

    Attributes:
        message_ids: of all events that it took.
        events: how many it took; more than there are ids when one came twice.
        refused: requests that it answered with 503.
    """

    def __init__(self) -> None:
        self.message_ids: set[str] = set()
        self.events = 0
        self.refused = 0
        self._first: float | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}/events"

    def __enter__(self) -> Advertiser:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes) -> int:
        """One request: the HTTP status to answer."""
        ids = [event["messageId"] for event in json.loads(body)["events"]]
        with self._lock:
            now = time.monotonic()
            self._first = self._first or now
            if now - self._first < UNAVAILABLE_SECONDS:
                self.refused += 1
                return 503
            self.message_ids.update(ids)
            self.events += len(ids)
            return 200


def _handler(advertiser: Advertiser) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(advertiser.take(body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the demo prints what counts."""

    return Handler
