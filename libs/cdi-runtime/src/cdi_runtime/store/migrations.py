"""Migrations: a service owns only the ``versions`` folder of its migrations package; the environment is here.

All steps of one upgrade run in one transaction (Postgres has transactional DDL) under an advisory lock, so that several
replicas may run it at once and a failed step leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition
from cdi_runtime.store.faults import translated

_LOCK = 0x0CD1_0001
_CONNECT_SECONDS = 5.0


class SchemaOutdated(FailedPrecondition):
    """The database is not at the head of the service's migrations."""

    def __init__(self, package: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
        at = ", ".join(found) or "empty"
        super().__init__(
            error_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
            f"the database of {package} is at {at}, expected {', '.join(expected)}",
            metadata={"dependency": "database"},
        )


async def upgrade(url: str, package: str) -> None:
    """Brings the database to the head of the package's migrations; does nothing when it is there already.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        package: the package with the folder ``versions``, e.g. ``cdi_consent.migrations``.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    script = _script(package)
    async with _connection(url) as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade, script)
        await connection.commit()


async def verify(url: str, package: str) -> None:
    """Returns when the database is at the head of the package's migrations.

    Raises:
        SchemaOutdated: it is not.
        StoreUnavailable: the database does not answer.
    """
    expected = tuple(sorted(_script(package).get_heads()))
    async with _connection(url) as connection:
        found = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_heads())
    if tuple(sorted(found)) != expected:
        raise SchemaOutdated(package, tuple(sorted(found)), expected)


def _script(package: str) -> ScriptDirectory:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no migrations package {package}", name=package)
    folder = Path(spec.submodule_search_locations[0])
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def _upgrade(connection: Connection, script: ScriptDirectory) -> None:
    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("heads", revision)

    environment = EnvironmentContext(Config(), script, fn=steps)
    with environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


@contextlib.asynccontextmanager
async def _connection(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        poolclass=NullPool,
        connect_args={"timeout": _CONNECT_SECONDS},
    )
    try:
        with translated():
            async with engine.connect() as connection:
                yield connection
    finally:
        await engine.dispose()
