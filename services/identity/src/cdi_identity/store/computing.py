"""Computed traits in Postgres: definitions, contributions, sweeping. A few statements per batch, arrays through ``unnest``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.identity.v1.computed_traits_service_pb2 import ComputedTrait as Document
from cdi_identity import computed_documents
from cdi_identity.domain.computed_traits import ComputedTrait, Definition
from cdi_identity.domain.history import ANONYMOUS_ID, USER_ID
from cdi_identity.domain.identifiers import fingerprint
from cdi_identity.ports_computing import Contribution, ListedTrait, ValueNow
from cdi_identity.store.announcing import Announcements
from cdi_identity.store.computed_values import COMPUTED, KEY, STATE, recompute
from cdi_identity.store.literals import array, microseconds, moment, text
from cdi_identity.store.locking import hold
from cdi_runtime.store import Database, Readers, enqueue, raw

_IDS: Final = "SELECT array_agg(trait_id ORDER BY trait_id) FROM computed_traits WHERE NOT retired"
_ALL: Final = "SELECT trait_id, document, filled, fill_error FROM computed_traits WHERE NOT retired {} ORDER BY {}"
_EVERYWHERE: Final = _ALL.format("", "trait_id")
_OF_WORKSPACE: Final = _ALL.format("AND workspace_id = $1", "name")
_UNFILLED: Final = _ALL.format("AND NOT filled", "trait_id")

_NEWEST: Final = """
SELECT max(version) FILTER (WHERE name = $2), count(*) FILTER (WHERE NOT retired AND name <> $2),
    max(version) FILTER (WHERE name = $2 AND NOT retired)
FROM computed_traits WHERE workspace_id = $1
"""
_DOCUMENT: Final = "SELECT document FROM computed_traits WHERE workspace_id = $1 AND name = $2 AND NOT retired"
_RETIRE: Final = "UPDATE computed_traits SET retired = true WHERE workspace_id = $1 AND name = $2 AND NOT retired RETURNING trait_id"
_DEFINE: Final = """
INSERT INTO computed_traits (workspace_id, name, version, aggregation, window_us, document) VALUES ($1, $2, $3, $4, $5, $6)
"""
_FILL_ENDED: Final = "UPDATE computed_traits SET filled = $2 = '', fill_error = $2 WHERE trait_id = $1 AND NOT filled"

# Whose an event is: that of its strongest id that the graph knows, and of the profile on which that was first seen; an event whose profile
# is not in the graph was not to be linked to a person (``domain.history.owner``).
_COUNT: Final = f"""
WITH known AS MATERIALIZED (
    SELECT e.*, t.aggregation, t.window_us IS NOT NULL AS windowed,
        (SELECT p.profile_id FROM profiles p WHERE p.profile_id = e.profile_id AND p.workspace_id = t.workspace_id) AS resolved,
        (SELECT coalesce(i.origin_profile_id, i.profile_id) FROM identifiers i
            WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[t.workspace_id, 'user_id', e.user_id]) AS of_user,
        (SELECT coalesce(i.origin_profile_id, i.profile_id) FROM identifiers i
            WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[t.workspace_id, 'anonymous_id', e.anonymous_id]) AS of_device
    FROM unnest(
        $1::int[], $2::text::text[], $3::text::uuid[], $4::text::text[], $5::bigint[], $6::text::text[], $7::bigint[], $8::timestamptz[],
        $9::text::text[]
    ) AS e (trait_id, message_id, profile_id, user_id, user_fingerprint, anonymous_id, anonymous_fingerprint, event_time, value)
    JOIN computed_traits t ON t.trait_id = e.trait_id AND NOT t.retired
    WHERE t.window_us IS NULL OR e.event_time >= $10::timestamptz - t.window_us * interval '1 microsecond'
), given AS MATERIALIZED (
    SELECT DISTINCT ON (trait_id, message_id) trait_id, message_id, aggregation, windowed, event_time, value,
        coalesce(of_user, of_device, resolved) AS profile_id,
        CASE WHEN of_user IS NOT NULL THEN user_fingerprint WHEN of_device IS NOT NULL THEN anonymous_fingerprint ELSE 0 END AS fingerprint
    FROM known WHERE resolved IS NOT NULL
), fresh AS (
    INSERT INTO contributions (trait_id, message_id, profile_id, fingerprint, event_time, value)
    SELECT trait_id, message_id, CASE WHEN windowed THEN profile_id END, CASE WHEN windowed THEN fingerprint END,
        CASE WHEN windowed THEN event_time END, CASE WHEN windowed THEN value END
    FROM given ON CONFLICT (trait_id, message_id) DO NOTHING RETURNING trait_id, message_id
), counted AS MATERIALIZED (
    SELECT * FROM given WHERE ((trait_id, message_id) IN (SELECT trait_id, message_id FROM fresh)) IS TRUE  -- hashed, whatever is estimated
), tallied AS (
    INSERT INTO tallies AS y (profile_id, fingerprint, trait_id, aggregation, value, number, amount, edge)
    SELECT profile_id, fingerprint, trait_id, aggregation, {KEY}, {STATE} FROM counted WHERE NOT windowed
    GROUP BY profile_id, fingerprint, trait_id, aggregation, {KEY}
    ON CONFLICT (profile_id, trait_id, fingerprint, value) DO UPDATE SET number = y.number + excluded.number,
        amount = CASE y.aggregation
            WHEN 4 THEN least(y.amount, excluded.amount) WHEN 5 THEN greatest(y.amount, excluded.amount) ELSE y.amount + excluded.amount
        END,
        edge = CASE y.aggregation WHEN 7 THEN least(y.edge, excluded.edge) WHEN 8 THEN greatest(y.edge, excluded.edge) END
)
SELECT DISTINCT profile_id::text FROM counted
"""

_VALUES: Final = f"""
WITH {COMPUTED}
SELECT n.name, n.value, coalesce(v.update_time, $2)
FROM persons JOIN profiles p ON p.profile_id = persons.profile_id AND p.workspace_id = $3
LEFT JOIN computed n ON n.profile_id = persons.profile_id
LEFT JOIN computed_values v ON v.profile_id = n.profile_id AND v.trait_id = n.trait_id AND v.value = n.value
ORDER BY n.name
"""

_DUE: Final = """
SELECT p.workspace_id, array_agg(d.profile_id::text) FROM (
    SELECT DISTINCT profile_id FROM (SELECT profile_id FROM computed_values WHERE due_time < $1 ORDER BY due_time LIMIT $2) o
) d JOIN profiles p ON p.profile_id = d.profile_id GROUP BY p.workspace_id
"""
_LEFT_THE_WINDOW: Final = """
WITH parts AS MATERIALIZED (
    SELECT profile_id FROM profiles WHERE profile_id = ANY($1::text::uuid[]) OR canonical_profile_id = ANY($1::text::uuid[])
)
DELETE FROM contributions WHERE ctid = ANY(ARRAY(
    SELECT c.place FROM parts, LATERAL (
        SELECT c.ctid AS place, c.trait_id, c.event_time FROM contributions c WHERE c.profile_id = parts.profile_id OFFSET 0
    ) c JOIN computed_traits t ON t.trait_id = c.trait_id
    WHERE c.event_time < $2::timestamptz - t.window_us * interval '1 microsecond'
))
"""

_RETIRED: Final = "SELECT trait_id, workspace_id FROM computed_traits WHERE retired ORDER BY trait_id LIMIT 1"
_CLEAR: Final = """
WITH c AS (
    DELETE FROM contributions WHERE (trait_id, message_id) IN (SELECT trait_id, message_id FROM contributions WHERE trait_id = $1 LIMIT $2)
    RETURNING profile_id
), y AS (
    DELETE FROM tallies WHERE ctid = ANY(ARRAY(SELECT ctid FROM tallies WHERE trait_id = $1 LIMIT $2)) RETURNING profile_id
)
SELECT profile_id::text FROM c UNION ALL SELECT profile_id::text FROM y
"""
_FORGET: Final = "DELETE FROM computed_traits WHERE trait_id = $1"


class PostgresComputedTraits:
    """The ``ComputedTraitStore`` on one service's database."""

    def __init__(self, database: Database, readers: Readers) -> None:
        self._database = database
        self._fetch = readers.fetch

    async def ids(self) -> tuple[int, ...]:
        """See ``ComputedTraitStore``."""
        [[ids]] = await self._fetch(_IDS)
        return tuple(ids or ())

    async def definitions(self) -> Sequence[Definition]:
        """See ``ComputedTraitStore``."""
        return [row.definition for row in map(_listed, await self._fetch(_EVERYWHERE))]

    async def apply(self, trait: ComputedTrait, limit: int) -> tuple[ComputedTrait, bool] | None:
        """See ``ComputedTraitStore``."""
        key = trait.workspace_id, trait.name
        async with self._database.transaction() as connection:
            await hold(connection, [trait.workspace_id])
            driver = raw(connection)
            newest, others, version = await driver.fetchrow(_NEWEST, *key) or (None, 0, None)
            document = computed_documents.message(trait)
            if version is not None:
                document.version = version
                if document == Document.FromString(await driver.fetchval(_DOCUMENT, *key)):
                    return computed_documents.computed_trait(document), False
            elif others >= limit:
                return None
            document.version = (newest or 0) + 1
            await driver.execute(_RETIRE, *key)
            stored = document.SerializeToString(deterministic=True)
            await driver.execute(_DEFINE, *key, document.version, int(trait.aggregation), trait.window_us or None, stored)
        return computed_documents.computed_trait(document), True

    async def delete(self, workspace_id: str, name: str) -> bool:
        """See ``ComputedTraitStore``."""
        async with self._database.transaction() as connection:
            await hold(connection, [workspace_id])
            return await raw(connection).fetchval(_RETIRE, workspace_id, name) is not None

    async def listed(self, workspace_id: str) -> Sequence[ListedTrait]:
        """See ``ComputedTraitStore``."""
        return [_listed(row) for row in await self._fetch(_OF_WORKSPACE, workspace_id)]

    async def values(self, workspace_id: str, profile_id: str, now_us: int) -> Sequence[ValueNow] | None:
        """See ``ComputedTraitStore``."""
        rows = await self._fetch(_VALUES, array([profile_id]), moment(now_us), workspace_id)
        return [ValueNow(row[0], row[1], microseconds(row[2])) for row in rows if row[0] is not None] if rows else None

    async def count(self, contributions: Sequence[Contribution], workspace_ids: Sequence[str], now_us: int) -> None:
        """See ``ComputedTraitStore``."""
        async with self._database.transaction() as connection:
            await hold(connection, workspace_ids)
            rows = await raw(connection).fetch(_COUNT, *_columns(contributions), moment(now_us))
            await _recompute(connection, (row[0] for row in rows), now_us)

    async def sweep_due(self, now_us: int, limit: int) -> int:
        """See ``ComputedTraitStore``."""
        now = moment(now_us)
        due = await self._fetch(_DUE, now, limit)
        for workspace_id, profile_ids in due:
            async with self._database.transaction() as connection:
                await hold(connection, [workspace_id])
                await raw(connection).execute(_LEFT_THE_WINDOW, array(profile_ids), now)
                await _recompute(connection, profile_ids, now_us)
        return sum(len(profile_ids) for _, profile_ids in due)

    async def sweep_retired(self, now_us: int, limit: int) -> bool:
        """See ``ComputedTraitStore``."""
        rows = await self._fetch(_RETIRED)
        if not rows:
            return False
        trait_id, workspace_id = rows[0]
        async with self._database.transaction() as connection:
            await hold(connection, [workspace_id])
            cleared = await raw(connection).fetch(_CLEAR, trait_id, limit)
            await _recompute(connection, (row[0] for row in cleared if row[0] is not None), now_us)
            if not cleared:
                await raw(connection).execute(_FORGET, trait_id)
        return True

    async def unfilled(self) -> Sequence[Definition]:
        """See ``ComputedTraitStore``."""
        return [row.definition for row in map(_listed, await self._fetch(_UNFILLED))]

    async def fill_ended(self, trait_id: int, error: str) -> None:
        """See ``ComputedTraitStore``."""
        async with self._database.session() as connection:
            await raw(connection).execute(_FILL_ENDED, trait_id, error)


async def _recompute(connection: AsyncConnection, profile_ids: Iterable[str], now_us: int) -> None:
    """Brings the values of persons up to date, and puts what is to be told of them into the outbox."""
    touched = set(profile_ids)
    if not touched:
        return
    announcements = Announcements(moment(now_us))
    announcements.traits(await recompute(connection, touched, now_us))
    await enqueue(connection, announcements.messages())


def _columns(contributions: Sequence[Contribution]) -> tuple[Any, ...]:
    users = [_id(item.user_id) for item in contributions]
    anonymous = [_id(item.anonymous_id) for item in contributions]
    return (
        [item.trait_id for item in contributions],
        array([text(item.message_id) for item in contributions]),
        array([item.profile_id for item in contributions]),
        array(users),
        [fingerprint(("", USER_ID, value)) for value in users],
        array(anonymous),
        [fingerprint(("", ANONYMOUS_ID, value)) for value in anonymous],
        [moment(item.time_us) for item in contributions],
        array([item.value for item in contributions]),
    )


def _id(value: str) -> str:
    """An id as the graph may have it; with a NUL character nobody has it."""
    return "" if "\0" in value else value


def _listed(row: Any) -> ListedTrait:
    trait_id, document, filled, error = row
    return ListedTrait(Definition(trait_id, computed_documents.computed_trait(Document.FromString(document))), filled, error)
