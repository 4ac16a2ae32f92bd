"""Destinations in Postgres, with every version that was ever in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from cdi.router.v1.destination_pb2 import Destination
from cdi_runtime.store import Database, raw

_ALL = "SELECT destination_id, version, document FROM destinations ORDER BY destination_id"
_PAGE = """
SELECT destination_id, version, document FROM destinations WHERE workspace_id = $1 AND name > $2 ORDER BY name LIMIT $3
"""
_FIND = "SELECT destination_id, version, document FROM destinations WHERE workspace_id = $1 AND name = $2 FOR UPDATE"
_CREATE = """
INSERT INTO destinations (workspace_id, name, version, document) VALUES ($1, $2, 1, $3) ON CONFLICT DO NOTHING
RETURNING destination_id, version, document
"""
_CHANGE = """
UPDATE destinations SET version = version + 1, document = $2, apply_time = now() WHERE destination_id = $1
RETURNING destination_id, version, document
"""
_REMEMBER = "INSERT INTO destination_versions (destination_id, version, document) VALUES ($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class StoredDestination:
    """A destination's document and the key that its deliveries carry."""

    destination_id: int
    document: Destination


class Documents:
    """The destinations of all workspaces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, document: Destination) -> tuple[StoredDestination, bool]:
        """Makes a destination be as given.

        Args:
            document: checked; its version is ignored.

        Returns:
            The destination as it now is, and whether that is a change.
        """
        given = Destination()
        given.CopyFrom(document)
        given.version = 0
        content = given.SerializeToString(deterministic=True)
        async with self._database.transaction() as transaction:
            connection = raw(transaction)
            row = await connection.fetchrow(_CREATE, given.workspace_id, given.name, content)
            if row is None:
                row = await connection.fetchrow(_FIND, given.workspace_id, given.name)
                assert row is not None, "destinations are never deleted"
                if row["document"] == content:
                    return _stored(row), False
                row = await connection.fetchrow(_CHANGE, row["destination_id"], content)
                assert row is not None
            await connection.execute(_REMEMBER, row["destination_id"], row["version"], content)
            return _stored(row), True

    async def all(self) -> Sequence[StoredDestination]:
        """Every destination."""
        async with self._database.transaction() as transaction:
            return [_stored(row) for row in await raw(transaction).fetch(_ALL)]

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[StoredDestination]:
        """Destinations of a workspace by name, those after ``after``."""
        async with self._database.transaction() as transaction:
            return [_stored(row) for row in await raw(transaction).fetch(_PAGE, workspace_id, after, limit)]


def _stored(row: asyncpg.Record) -> StoredDestination:
    document = Destination.FromString(row["document"])
    document.version = row["version"]
    return StoredDestination(row["destination_id"], document)
