"""Pytest plugin of CDI: loaded by the root pytest configuration, gives every suite real servers and services.

Streams have fixed names, so a suite that needs a bus of its own takes ``fresh_nats`` or ``module_nats``: a server starts in
milliseconds. Postgres takes a second to create, so there is one per run and a fresh database per test or module. A migration
takes longer than a copy, so each service migrates one database per run, and the others are copies of it.
"""

import asyncio
import os
import shutil
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_runtime.store.migrations import upgrade

MEMORY: Final = Path("/dev/shm")
"""A file system in memory, where there is one."""

MEMORY_BYTES: Final = 8 * 1024**3
"""What must be free there: a whole run writes less than half of it."""

_DATABASE_NUMBERS = count(1)


class MigratedDatabases:
    """New databases at the head of a service's migrations."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self._templates: dict[str, str] = {}

    def __call__(self, service: str) -> str:
        """The URL of a new database.

        Args:
            service: name as in the repository, such as ``"identity"``.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        if service not in self._templates:
            template = f"migrated_{service}"
            migration = upgrade(self._postgres.create_database(template), f"cdi_{service}.migrations")
            # A thread, because the test that asks may have a running loop.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, migration).result()
            self._templates[service] = template
        return self._postgres.create_database(new_database_name(), template=self._templates[service])


class StartService:
    """Starts services for one test and stops them at its end, the last first.

    Each service gets a fresh, migrated database of its own and, unless the test says otherwise, the test's ``fresh_nats``.
    """

    def __init__(self, request: pytest.FixtureRequest, databases: MigratedDatabases, directory: Path) -> None:
        self.started: list[ServiceProcess] = []
        self._request = request
        self._databases = databases
        self._directory = directory

    def __call__(
        self, service: str, environment: Mapping[str, str] | None = None, *, name: str | None = None, migrate: bool = False
    ) -> ServiceProcess:
        """Start a service.

        Args:
            service: name as in the repository, such as ``"identity"``.
            environment: settings that matter to the test. Without ``CDI_NATS_URL`` the service uses the test's
                ``fresh_nats``; without ``CDI_DATABASE_URL`` a new, migrated database.
            name: distinguishes replicas of one service in logs.
            migrate: first migrate the database that ``environment`` names.

        Raises:
            ProcessFailed: the migration or the start failed; the text ends with the log.
        """
        settings = dict(environment or {})
        if "CDI_NATS_URL" not in settings:
            settings["CDI_NATS_URL"] = self._request.getfixturevalue("fresh_nats").url
        if "CDI_DATABASE_URL" not in settings:
            settings["CDI_DATABASE_URL"] = self._databases(service)
        process = ServiceProcess(service, settings, self._directory, name=name)
        if migrate:
            process.migrate()
        self.started.append(process)
        return process.start()

    def stop(self) -> None:
        """Stop everything that was started: all drain at once, then each is waited for."""
        for process in self.started:
            process.terminate()
        for process in reversed(self.started):
            process.stop()


def pytest_configure() -> None:
    """Lets tests write into memory where there is enough of it: those that load or spool wait for a disk longer than they work.

    It proves as much: the kernel keeps what a killed process has written, and no test cuts the power.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def new_database_name() -> str:
    """A database name that this test run has not used."""
    return f"test_{next(_DATABASE_NUMBERS)}"


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One NATS server for the run, for tests that name their own streams and never restart it."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def module_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server that only this module uses."""
    with NatsServer(tmp_path_factory.mktemp("module-nats")) as server:
        yield server


@pytest.fixture
def fresh_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server that only this test uses and may stop, kill and restart."""
    with NatsServer(tmp_path_factory.mktemp("fresh-nats")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One Postgres server for the run, without fsync."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of an empty database that only this test uses."""
    name = new_database_name()
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> MigratedDatabases:
    """Factory of databases that a service may start on; see ``MigratedDatabases``."""
    return MigratedDatabases(postgres_server)


@pytest.fixture
def start_service(
    request: pytest.FixtureRequest, migrated_database: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartService]:
    """Factory of service processes; see ``StartService``."""
    starter = StartService(request, migrated_database, tmp_path_factory.mktemp("services"))
    # Set up first, so that it is torn down last: services drain into a living broker.
    request.getfixturevalue("fresh_nats")
    try:
        yield starter
    finally:
        starter.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the test's services to the report of a failure."""
    report = yield
    starter = getattr(item, "funcargs", {}).get("start_service")
    if report.failed and isinstance(starter, StartService):
        report.sections += [(f"log of {process.name}", process.process.log_tail()) for process in starter.started]
    return report
