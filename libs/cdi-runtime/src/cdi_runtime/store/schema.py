"""Whether a database is at the head of a service's migrations: asked at every start, so without Alembic."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition
from cdi_runtime.store.faults import translated

_CONNECT_SECONDS = 5.0
_VERSIONS = "SELECT version_num FROM alembic_version"
_HAS_VERSIONS = "SELECT to_regclass('alembic_version') IS NOT NULL"


class SchemaOutdated(FailedPrecondition):
    """The database is not at the head of the service's migrations."""

    def __init__(self, package: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
        at = ", ".join(found) or "empty"
        super().__init__(
            error_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
            f"the database of {package} is at {at}, expected {', '.join(expected)}",
            metadata={"dependency": "database"},
        )


async def verify(url: str, package: str) -> None:
    """Returns when the database is at the head of the package's migrations.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        package: the package with the folder ``versions``, e.g. ``cdi_consent.migrations``.

    Raises:
        SchemaOutdated: it is not.
        StoreUnavailable: the database does not answer.
    """
    expected = heads(folder_of(package) / "versions")
    async with connection_of(url) as connection:
        found: list[str] = []
        if await connection.scalar(text(_HAS_VERSIONS)):
            found = sorted((await connection.scalars(text(_VERSIONS))).all())
    if tuple(found) != expected:
        raise SchemaOutdated(package, tuple(found), expected)


def heads(versions: Path) -> tuple[str, ...]:
    """The revisions that no other revision follows, sorted; read from the files without running them."""
    revisions: set[str] = set()
    followed: set[str] = set()
    for file in versions.glob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                if statement.targets[0].id == "revision":
                    revisions.add(ast.literal_eval(statement.value))
                elif statement.targets[0].id == "down_revision":
                    before = ast.literal_eval(statement.value) or ()
                    followed.update([before] if isinstance(before, str) else before)
    return tuple(sorted(revisions - followed))


def folder_of(package: str) -> Path:
    """Where a package's files are; ``ModuleNotFoundError`` if there is no such package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no migrations package {package}", name=package)
    return Path(spec.submodule_search_locations[0])


@contextlib.asynccontextmanager
async def connection_of(url: str) -> AsyncIterator[AsyncConnection]:
    """One connection, without a pool, for the time of the block."""
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
