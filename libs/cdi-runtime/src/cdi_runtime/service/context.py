"""What a service's bootstrap is handed: its name, its stop signal, its readiness and its supervised tasks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from cdi_kernel.faults import Fault
from cdi_runtime.telemetry.logs import logger

Check = Callable[[], str | None]
"""A readiness check: ``None`` when ready, otherwise the reason in a few words. Called often: it must only look, not do."""

log = logger(__name__)


class Readiness:
    """Whether this replica may be sent work, as named checks."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Adds a check, or replaces the one of that name."""
        self._checks[name] = check

    def remove(self, name: str) -> None:
        """Takes a check out again; unknown names are ignored."""
        self._checks.pop(name, None)

    def reasons(self) -> dict[str, str]:
        """The checks that say no, with their reasons. Empty means ready."""
        return {name: reason for name, check in self._checks.items() if (reason := check()) is not None}


class ServiceContext:
    """The process as its bootstrap sees it. A test that runs a bootstrap in its own loop makes one itself.

    Attributes:
        name: the service's public name.
        instance: a short random id of this process, for logs, metrics and ownership records.
        stopping: set once when the process was told to end, or when a supervised task failed.
        readiness: what ``/readyz`` and gRPC health report.
        addresses: what was announced, by name: ``grpc``, ``ops``, ``http``.
        failure: the first exception of a supervised task.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.instance = secrets.token_hex(4)
        self.stopping = asyncio.Event()
        self.readiness = Readiness()
        self.failure: BaseException | None = None
        self._addresses: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def addresses(self) -> Mapping[str, str]:
        """The announced addresses by name."""
        return self._addresses

    def announce(self, name: str, address: str) -> None:
        """Tells the parent process where something listens: part of the one line on stdout after the start."""
        self._addresses[name] = address

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Starts a task under supervision: an exception stops the service with exit code 1.

        A task that ends by itself is fine. What still runs after the bootstrap has left is cancelled, so a task that
        uses a resource of the bootstrap belongs into ``background`` instead, inside that resource's ``async with``.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    @contextlib.asynccontextmanager
    async def background(self, work: Coroutine[Any, Any, Any], name: str) -> AsyncIterator[asyncio.Task[Any]]:
        """A supervised task that lives as long as the block: cancelled and awaited at its end."""
        task = self.spawn(work, name)
        try:
            yield task
        finally:
            await _end(task)

    @contextlib.asynccontextmanager
    async def probing(self, name: str, ping: Callable[[], Awaitable[None]], *, every: float = 2.0) -> AsyncIterator[None]:
        """A readiness check that awaits: ``ping`` runs every few seconds, and its last outcome is the check's answer.

        Args:
            name: the check's name in ``/readyz``.
            ping: returns when the dependency answers; raises a ``Fault`` when not.
            every: seconds between two pings, and the longest time one may take.
        """
        state: list[str | None] = ["not answered yet"]
        self.readiness.add(name, lambda: state[0])

        async def probe() -> None:
            while True:
                state[0] = await _reason(ping, every)
                await asyncio.sleep(every)

        async with self.background(probe(), f"probe-{name}"):
            yield

    async def end_tasks(self) -> None:
        """Cancels what was spawned and still runs, and waits for it."""
        for task in list(self._tasks):
            await _end(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None:
            log.error("service.task_failed", task=task.get_name(), exc_info=failure)
            self.failure = self.failure or failure
            self.stopping.set()


async def _reason(ping: Callable[[], Awaitable[None]], timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            await ping()
    except Fault as fault:
        return fault.message
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    return None


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and waits until it is over. Its own failure was already recorded by the supervision."""
    task.cancel()
    await asyncio.wait([task])
