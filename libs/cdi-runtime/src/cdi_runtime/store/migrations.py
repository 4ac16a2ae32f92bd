"""Migrations: a service owns only the ``versions`` folder of its migrations package; the environment is here.

All steps of one upgrade run in one transaction (Postgres has transactional DDL) under an advisory lock, so that several
replicas may run it at once and a failed step leaves nothing behind.

A module of its own because a serving process needs none of Alembic (15 MB, a third of a second); it only verifies (``schema.py``).
"""

from __future__ import annotations

from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from cdi_runtime.store.schema import connection_of, folder_of

_LOCK = 0x0CD1_0001


async def upgrade(url: str, package: str) -> None:
    """Brings the database to the head of the package's migrations; does nothing when it is there already.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        package: the package with the folder ``versions``, e.g. ``cdi_consent.migrations``.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    script = _script(package)
    async with connection_of(url) as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade, script)
        await connection.commit()


def _script(package: str) -> ScriptDirectory:
    folder = folder_of(package)
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def _upgrade(connection: Connection, script: ScriptDirectory) -> None:
    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("heads", revision)

    environment = EnvironmentContext(Config(), script, fn=steps)
    with environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
