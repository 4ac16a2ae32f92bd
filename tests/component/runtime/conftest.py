"""A migrated example database for the tests of the store."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cdi_runtime.store import Database
from cdi_runtime.store.migrations import upgrade

MIGRATIONS = "example_migrations"


@pytest.fixture(scope="session")
def migrations() -> str:
    """The name of a package with two migrations, made importable."""
    sys.path.insert(0, str(Path(__file__).parent))
    return MIGRATIONS


@pytest.fixture
async def migrated_url(database_url: str, migrations: str) -> str:
    await upgrade(database_url, migrations)
    return database_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    async with Database.connect(migrated_url) as made:
        yield made
