"""The identity graph in Postgres: a few statements per batch, arrays through ``unnest``, never one per event.

Every statement reaches its rows through an index (``indexed_only``). READ COMMITTED is enough and meant: the statement after the one
that takes the lock sees all that the last holder committed, while a transaction-wide snapshot would be older than the lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import xxhash
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.identity.v1.profile_pb2 import ProfilesMerged
from cdi_identity.domain.graph import Changes, Merge, Profile
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import GraphWriter, StoredProfile
from cdi_kernel import envelope, topology
from cdi_runtime.store import Database, OutboxMessage, Readers, enqueue, raw

MERGED_SCHEMA: Final = "cdi.identity.v1.ProfilesMerged"

_LOCK_SPACE: Final = 0x0CD1
"""First key of the workspace locks. The two-key locks are a space of their own beside the one-key lock of the outbox."""

# A replica whose host vanished must not keep a workspace for long: its transaction ends by itself.
_LOCK: Final = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), pg_advisory_xact_lock($1, key)
FROM unnest($2::int[]) AS key
"""

# Many strings travel as one text each way (``_array``, string_agg): the driver takes half a microsecond for every element of an array.
_OWNERS: Final = """
SELECT string_agg(coalesce(
    (SELECT i.profile_id::text FROM identifiers i WHERE i.workspace_id = k.workspace_id AND i.type = k.type AND i.value = k.value), ''
), ',' ORDER BY k.position)
FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) WITH ORDINALITY AS k (workspace_id, type, value, position)
"""

_PROFILES: Final = """
SELECT p.profile_id::text, p.workspace_id, p.ordinal, p.merges, p.traits, c.types, c.numbers
FROM profiles p, LATERAL (
    SELECT array_agg(n.type) AS types, array_agg(n.number) AS numbers
    FROM (SELECT i.type, count(*) AS number FROM identifiers i WHERE i.profile_id = p.profile_id GROUP BY i.type) n
) c
WHERE p.profile_id = ANY($1::uuid[])
"""

_INSERT_PROFILES: Final = """
INSERT INTO profiles (profile_id, workspace_id, canonical_profile_id, merges, traits, create_time)
SELECT profile_id, workspace_id, nullif(canonical, '')::uuid, merges, traits, $6
FROM unnest($1::text::uuid[], $2::text::text[], $3::text::text[], $4::int[], $5::bytea[])
    WITH ORDINALITY AS n (profile_id, workspace_id, canonical, merges, traits, position)
ORDER BY position
"""

_INSERT_IDENTIFIERS: Final = """
INSERT INTO identifiers (workspace_id, type, value, profile_id, origin_profile_id)
SELECT * FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::uuid[], $5::text::uuid[])
"""

_MOVE_IDENTIFIERS: Final = """
UPDATE identifiers i SET profile_id = m.canonical FROM unnest($1::uuid[], $2::uuid[]) AS m (merged, canonical) WHERE i.profile_id = m.merged
"""

_MOVE_PROFILES: Final = """
UPDATE profiles p SET canonical_profile_id = m.canonical FROM unnest($1::uuid[], $2::uuid[]) AS m (merged, canonical)
WHERE p.profile_id = m.merged OR p.canonical_profile_id = m.merged
"""

_UPDATE_PROFILES: Final = """
UPDATE profiles p SET merges = n.merges, traits = n.traits
FROM unnest($1::uuid[], $2::int[], $3::bytea[]) AS n (profile_id, merges, traits) WHERE p.profile_id = n.profile_id
"""

_INSERT_MERGES: Final = """
INSERT INTO merges (workspace_id, canonical_profile_id, merged_profile_id, message_id, merge_time)
SELECT workspace_id, canonical, merged, message_id, $5
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[])
    WITH ORDINALITY AS m (workspace_id, canonical, merged, message_id, position)
ORDER BY position
"""

_ID_OF_IDENTIFIER: Final = "(SELECT profile_id FROM identifiers WHERE workspace_id = $1 AND type = $2 AND value = $3)"
_ID_OF_ID: Final = "(SELECT coalesce(canonical_profile_id, profile_id) FROM profiles WHERE workspace_id = $1 AND profile_id = $2::uuid)"

# One statement, so that a merge in between cannot tear the answer.
_READ_PROFILE: Final = """
SELECT p.profile_id::text, p.workspace_id, p.traits, p.create_time,
    (SELECT array_agg(ARRAY[i.type, i.value] ORDER BY i.type, i.value) FROM identifiers i WHERE i.profile_id = p.profile_id) AS identifiers,
    (SELECT array_agg(m.profile_id::text ORDER BY m.ordinal) FROM profiles m WHERE m.canonical_profile_id = p.profile_id) AS merged
FROM profiles p WHERE p.profile_id = {}
"""
_READ_BY_IDENTIFIER: Final = _READ_PROFILE.format(_ID_OF_IDENTIFIER)
_READ_BY_ID: Final = _READ_PROFILE.format(_ID_OF_ID)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def indexed_only(database: Database) -> None:
    """Forbids sequential scans to the connections that the pool makes from now on.

    Every access here is by key. Without this, a plan that is kept since the tables were small reads them whole for each key once they
    have grown, until the next ANALYZE.
    """

    @event.listens_for(database.engine.sync_engine, "connect")
    def forbid(connection: Any, _: object) -> None:
        connection.run_async(lambda driver: driver.execute("SET enable_seqscan = off"))


class PostgresGraph:
    """The ``GraphStore`` on one service's database."""

    def __init__(self, database: Database, readers: Readers) -> None:
        self._database = database
        self._readers = readers

    async def owners(self, identifiers: Sequence[Identifier]) -> Sequence[str | None]:
        """See ``GraphStore``."""
        # One statement is one snapshot by itself: BEGIN and COMMIT would be two more round trips.
        async with self._database.session() as connection:
            return await _owners(connection, identifiers)

    @asynccontextmanager
    async def changing(self, workspace_ids: Iterable[str]) -> AsyncIterator[GraphWriter]:
        """See ``GraphStore``. Locks are taken in ascending order by everybody: no deadlock."""
        keys = sorted({_lock_key(workspace_id) for workspace_id in workspace_ids})
        async with self._database.transaction() as connection:
            await raw(connection).execute(_LOCK, _LOCK_SPACE, keys)
            yield PostgresGraphWriter(connection)

    async def profile_by_id(self, workspace_id: str, profile_id: str) -> StoredProfile | None:
        """See ``GraphStore``."""
        return await self._read(_READ_BY_ID, workspace_id, profile_id)

    async def profile_by_identifier(self, identifier: Identifier) -> StoredProfile | None:
        """See ``GraphStore``."""
        return await self._read(_READ_BY_IDENTIFIER, *identifier)

    async def _read(self, statement: str, *arguments: str) -> StoredProfile | None:
        rows = await self._readers.fetch(statement, *arguments)
        if not rows:
            return None
        row = rows[0]
        return StoredProfile(
            profile_id=row["profile_id"],
            workspace_id=row["workspace_id"],
            identifiers=[(row["workspace_id"], kind, value) for kind, value in row["identifiers"] or ()],
            document=row["traits"],
            merged_profile_ids=row["merged"] or [],
            create_us=(row["create_time"] - _EPOCH) // timedelta(microseconds=1),
        )


class PostgresGraphWriter:
    """The ``GraphWriter`` inside a transaction that holds the locks of its workspaces."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def load(self, identifiers: Sequence[Identifier]) -> Mapping[Identifier, Profile]:
        """See ``GraphWriter``."""
        owners = await _owners(self._connection, identifiers)
        known = {owner for owner in owners if owner is not None}
        if not known:
            return {}
        rows = await raw(self._connection).fetch(_PROFILES, list(known))
        profiles = {
            row[0]: Profile(row[0], row[1], row[2], dict(zip(row[5] or (), row[6] or (), strict=True)), row[3], row[4]) for row in rows
        }
        return {identifier: profiles[owner] for identifier, owner in zip(identifiers, owners, strict=True) if owner is not None}

    async def save(self, changes: Changes, now_us: int) -> None:
        """See ``GraphWriter``."""
        now = _EPOCH + timedelta(microseconds=now_us)
        await self._insert(changes, now)
        driver = raw(self._connection)
        if changes.moved:
            merged = [profile.profile_id for profile in changes.moved]
            canonical = [profile.canonical.profile_id for profile in changes.moved]
            await driver.execute(_MOVE_IDENTIFIERS, merged, canonical)
            await driver.execute(_MOVE_PROFILES, merged, canonical)
        if changes.updated:
            await driver.execute(
                _UPDATE_PROFILES,
                [profile.profile_id for profile in changes.updated],
                [profile.merges for profile in changes.updated],
                [profile.rendered() for profile in changes.updated],
            )
        if changes.merges:
            await self._log(changes.merges, now)
            await enqueue(self._connection, [_message(merge, now) for merge in changes.merges])

    async def _insert(self, changes: Changes, now: datetime) -> None:
        """Fresh profiles and identifiers. A unique violation here would mean that somebody wrote without the lock: a bug."""
        driver = raw(self._connection)
        if changes.created:
            await driver.execute(
                _INSERT_PROFILES,
                _array([profile.profile_id for profile in changes.created]),
                _array([profile.workspace_id for profile in changes.created]),
                _array(["" if profile.into is None else profile.canonical.profile_id for profile in changes.created]),
                [profile.merges for profile in changes.created],
                [profile.rendered() for profile in changes.created],
                now,
            )
        if changes.identifiers:
            await driver.execute(
                _INSERT_IDENTIFIERS,
                *_columns([identifier for identifier, _ in changes.identifiers]),
                _array([profile.canonical.profile_id for _, profile in changes.identifiers]),
                _array([profile.profile_id for _, profile in changes.identifiers]),
            )

    async def _log(self, merges: Sequence[Merge], now: datetime) -> None:
        await raw(self._connection).execute(
            _INSERT_MERGES,
            [merge.workspace_id for merge in merges],
            [merge.canonical_profile_id for merge in merges],
            [merge.merged_profile_id for merge in merges],
            # Postgres has no NUL character in a text; a client may put one into its message id.
            [merge.message_id.replace("\0", "\N{REPLACEMENT CHARACTER}") for merge in merges],
            now,
        )


async def _owners(connection: AsyncConnection, identifiers: Sequence[Identifier]) -> list[str | None]:
    found: str | None = await raw(connection).fetchval(_OWNERS, *_columns(identifiers))
    return [] if found is None else [owner or None for owner in found.split(",")]


def _columns(identifiers: Sequence[Identifier]) -> tuple[str, str, str]:
    return (
        _array([workspace_id for workspace_id, _, _ in identifiers]),
        _array([kind for _, kind, _ in identifiers]),
        _array([value for _, _, value in identifiers]),
    )


def _array(texts: Sequence[str]) -> str:
    """The literal of a Postgres array. No text has a NUL character: no usable identifier does."""
    if not texts:
        return "{}"
    quoted = "\0".join(texts).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{quoted}"}}'


def _lock_key(workspace_id: str) -> int:
    """Two workspaces with the same key only wait for each other."""
    return xxhash.xxh32_intdigest(workspace_id.encode()) - (1 << 31)


def _message(merge: Merge, now: datetime) -> OutboxMessage:
    event_ = ProfilesMerged(
        workspace_id=merge.workspace_id,
        canonical_profile_id=merge.canonical_profile_id,
        merged_profile_id=merge.merged_profile_id,
        message_id=merge.message_id,
    )
    event_.merge_time.FromDatetime(now)
    return OutboxMessage(topology.identity("merged"), event_.SerializeToString(), {envelope.SCHEMA: MERGED_SCHEMA})
