"""A proxy in front of the collector that answers for it as a failing service would, then passes everything on."""

import http.client
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOST = 0
"""In the place of a status: the request is passed on and stored, and the client is told 503 all the same."""


class Proxy:
    """What it has answered so far, and where it listens."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered: list[int] = []


@contextmanager
def unreliable(address: str, failures: Sequence[int]) -> Iterator[Proxy]:
    """A proxy that answers its first requests with these statuses.

    Args:
        address: ``host:port`` of the collector.
        failures: statuses, or ``LOST``; 429 says to come back after a second.
    """
    left, lock = list(failures), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                failure = left.pop(0) if left else None
            status, content = (failure, b"{}") if failure else self._passed_on(body)
            status = 503 if failure == LOST else status
            proxy.answered.append(status)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(content)

        def _passed_on(self, body: bytes) -> tuple[int, bytes]:
            upstream = http.client.HTTPConnection(address, timeout=30)
            try:
                upstream.request("POST", self.path, body, dict(self.headers.items()))
                response = upstream.getresponse()
                return response.status, response.read()
            finally:
                upstream.close()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            serving.join()
