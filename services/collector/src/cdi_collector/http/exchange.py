"""A request on its way through the door, from its head to its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cdi_collector.admission import Budget
from cdi_collector.http.responses import Response


class Exchange:
    """What is known of a request, what it has in memory, and its answer once there is one.

    Attributes:
        method: in capitals.
        path: decoded, without the query.
        query: as the client sent it.
        headers: by lower-case name, the last one where a name repeats; of X-Forwarded-For all, separated by commas.
        peer: the address of the other end; empty if it has none.
        response: the answer; the first one stands.
        origin_hidden: the page that asks gets no permission to read the answer.
    """

    __slots__ = (
        "_answered",
        "_budget",
        "_chunks",
        "_entered",
        "_held",
        "headers",
        "method",
        "origin_hidden",
        "path",
        "peer",
        "query",
        "response",
    )

    def __init__(self, method: str, path: str, query: bytes, headers: Mapping[bytes, bytes], peer: str, budget: Budget) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.response: Response | None = None
        self.origin_hidden = False
        self._budget = budget
        self._chunks: list[bytes] = []
        self._held = 0
        self._entered = False
        self._answered: Callable[[], None] | None = None

    def enter(self) -> None:
        """Counts the request in; raises ``Unavailable`` when there is no room for it."""
        self._budget.enter()
        self._entered = True

    def hold(self, amount: int) -> int:
        """Counts bytes in and returns how many are held now; raises ``Unavailable`` when there is no room for them."""
        self._budget.take(amount)
        self._held += amount
        return self._held

    def keep(self, chunk: bytes) -> None:
        """A piece of the body."""
        self._chunks.append(chunk)

    def body(self) -> bytes:
        """The body as far as it has come."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def when_answered(self, call: Callable[[], None]) -> None:
        """Calls when there is an answer; at once if there is one."""
        self._answered = call
        if self.response is not None:
            call()

    def answer(self, response: Response) -> None:
        """Ends the exchange, unless it has ended: nothing is held any more."""
        if self.response is not None:
            return
        self.response = response
        self.release()
        if self._answered is not None:
            self._answered()

    def release(self) -> None:
        """Nothing is held any more."""
        self._budget.give(self._held)
        self._held = 0
        self._chunks.clear()
        if self._entered:
            self._entered = False
            self._budget.leave()
