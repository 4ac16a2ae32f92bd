"""One identity service with its own Postgres and a broker, and an empty one, and what they use while they are asked for something."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.cores import alone
from bench.identity_calls import Answered, IdentityCalls
from bench.meter import Meter
from bench.traffic import percentile
from cdi.identity.v1.profile_pb2 import Identifier
from cdi_cli.embedded import ChildProcess, NatsServer, PostgresServer, ServiceProcess

PARTS: Final = ("service", "postgres", "generator")
MAX_WAL_SIZE: Final = "4GB"
"""Of Postgres: what identity's README says for a graph of millions."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A phase once.

    Attributes:
        answered: what the client saw.
        us_per_event: CPU by part, microseconds.
        other_cores: cores that processes outside this benchmark kept busy meanwhile.
    """

    answered: Answered
    us_per_event: dict[str, float]
    other_cores: float

    @property
    def per_second(self) -> float:
        """Events."""
        return self.answered.events / self.answered.seconds

    def p99_ms(self) -> float:
        """Of the calls."""
        return percentile(self.answered.latencies, 0.99) * 1000


class Empty:
    """A gRPC service that does nothing.

    Args:
        pid: of its process.
        address: ``host:port``.
    """

    def __init__(self, pid: int, address: str) -> None:
        self.calls = IdentityCalls(address)
        self._pid = pid

    async def profiles(self, questions: list[tuple[bytes, Identifier]], per_second: float) -> Measured:
        """As ``Stand.profiles``."""
        with alone(self._pid, []):
            found, _ = await _measured({"service": self._pid}, self.calls.profiles(questions, per_second))
        return found


class Stand:
    """What is measured, running.

    Args:
        service: the identity service.
        postgres: its server.
        url: of its database there.
        nats: the broker for its outbox.
    """

    def __init__(self, service: ServiceProcess, postgres: PostgresServer, url: str, nats: NatsServer) -> None:
        self.calls = IdentityCalls(service.grpc)
        self.url = url
        self.peak_rss_bytes = 0
        self._service = service
        self._postgres = postgres
        self._database = url.rpartition("/")[2]
        self._parts = {"service": service.pid, "postgres": postgres.process.pid, "nats": nats.process.pid}

    async def close(self) -> None:
        """Ends the connection."""
        await self.calls.close()

    async def forget(self) -> None:
        """Starts the service anew, so that it remembers nobody."""
        await self.calls.close()
        self._service.restart()
        self._parts["service"] = self._service.pid
        self.calls = IdentityCalls(self._service.grpc)

    async def resolve(self, requests: Iterable[bytes]) -> Measured:
        """Sends requests as fast as they are answered."""
        return await self._measured(self.calls.resolve(requests))

    async def profiles(self, questions: list[tuple[bytes, Identifier]], per_second: float) -> Measured:
        """Asks for profiles at a constant rate. The service has a core for itself."""
        with alone(self._parts["service"], [self._parts["postgres"], self._parts["nats"]]):
            return await self._measured(self.calls.profiles(questions, per_second))

    async def _measured(self, run: Coroutine[Any, Any, Answered]) -> Measured:
        found, peak_bytes = await _measured(self._parts, run)
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_bytes)
        return found

    def settle(self) -> None:
        """Postgres as it is in a quiet hour: vacuumed, with statistics, nothing left to write."""
        for table in self._tables():
            self._sql(f"VACUUM ANALYZE {table}")
        self._sql("CHECKPOINT")

    def storage_bytes(self) -> dict[str, int]:
        """The database as a whole (``all``), and its tables with their indexes, largest first."""
        sizes = {table: int(self._sql(f"SELECT pg_total_relation_size('{table}')")) for table in self._tables()}
        whole = int(self._sql(f"SELECT pg_database_size('{self._database}')"))
        return {"all": whole, **dict(sorted(sizes.items(), key=lambda entry: -entry[1]))}

    def huge_pages(self) -> str:
        """Whether Postgres has its shared buffers in huge pages: ``on`` or ``off``; ``unknown`` before Postgres 17."""
        return self._sql("SELECT coalesce(current_setting('huge_pages_status', true), 'unknown')")

    def _tables(self) -> list[str]:
        return self._sql("SELECT relname FROM pg_stat_user_tables ORDER BY relname").split()

    def _sql(self, statement: str) -> str:
        return self._postgres.execute(statement, self._database)


@asynccontextmanager
async def stand(directory: Path, database: str, shared_buffers: str) -> AsyncIterator[Stand]:
    """The three processes, with an empty graph. Postgres flushes before it answers a commit, as in production."""
    async with AsyncExitStack() as stack:
        nats = stack.enter_context(NatsServer(directory / "nats"))
        postgres = stack.enter_context(PostgresServer(directory / "postgres", shared_buffers=shared_buffers, max_wal_size=MAX_WAL_SIZE))
        url = postgres.create_database(database)
        environment = {"CDI_NATS_URL": nats.url, "CDI_DATABASE_URL": url}
        service = ServiceProcess("identity", environment, directory)
        service.migrate()
        stack.enter_context(service)
        running = Stand(service, postgres, url, nats)
        stack.push_async_callback(running.close)
        yield running


@asynccontextmanager
async def empty(directory: Path) -> AsyncIterator[Empty]:
    """The empty service, running."""
    output = directory / "empty.out"
    process = ChildProcess("empty", [sys.executable, "-m", "bench.empty_identity"], directory / "empty.log", output_file=output)
    process.start()
    try:
        process.await_ready(lambda: output.read_text().endswith("\n"), 10)
        running = Empty(process.pid, output.read_text().strip())
        yield running
        await running.calls.close()
    finally:
        process.kill()


async def _measured(parts: Mapping[str, int], run: Coroutine[Any, Any, Answered]) -> tuple[Measured, int]:
    """What a run used, and the highest resident memory of the service, bytes."""
    meter = Meter(parts)
    meter.start()
    busy, started = _busy_seconds(), time.perf_counter()
    answered = await run
    busy, seconds = _busy_seconds() - busy, time.perf_counter() - started
    meter.stop()
    other = max(busy - sum(meter.cpu_seconds.values()), 0) / seconds
    per_event = {part: round(used / max(answered.events, 1) * 1e6, 1) for part, used in meter.cpu_seconds.items()}
    return Measured(answered, per_event, round(other, 2)), meter.peak_bytes["service"]


def _busy_seconds() -> float:
    """CPU that all processes of the machine have used."""
    used = psutil.cpu_times()
    return used.user + used.nice + used.system + used.irq + used.softirq
