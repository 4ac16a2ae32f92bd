"""Writing the identity graph: inside a transaction that holds the locks of its workspaces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.domain.changes import Changes
from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.graph import Profile
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.rules import Rules
from cdi_identity.domain.separation import Separation, Whole
from cdi_identity.ports import Lookup
from cdi_identity.store import decisions, lookups, rules, separations
from cdi_identity.store.announcing import Announcements
from cdi_identity.store.computed_values import recompute
from cdi_identity.store.literals import array, columns, moment, text
from cdi_runtime.store import enqueue, raw

R = TypeVar("R")
T = TypeVar("T")

_TURNS_UNTIL_SENT: Final = 2
"""Of the event loop: in the first one a statement is written, at its end it leaves."""

_PROFILES: Final = """
SELECT p.profile_id::text, p.workspace_id, p.ordinal, p.traits, c.types, c.numbers, m.ids::text[], m.documents, s.foes
FROM profiles p, LATERAL (
    SELECT array_agg(n.type) AS types, array_agg(n.number) AS numbers
    FROM (SELECT i.type, count(*) AS number FROM identifiers i WHERE i.profile_id = p.profile_id GROUP BY i.type) n
) c, LATERAL (
    SELECT array_agg(m.profile_id ORDER BY m.ordinal) AS ids, array_agg(m.traits ORDER BY m.ordinal) AS documents
    FROM profiles m WHERE p.merges > 0 AND m.canonical_profile_id = p.profile_id
) m, LATERAL (
    SELECT array_agg(coalesce(o.canonical_profile_id, o.profile_id)::text) AS foes
    FROM separations s JOIN profiles o ON o.profile_id = s.other_profile_id WHERE s.profile_id = ANY(array_append(m.ids, p.profile_id))
) s
WHERE p.profile_id = ANY($1::text::uuid[])
"""

# Identifiers from before decisions were kept count from the time of the profile.
_RECENT: Final = """
SELECT i.profile_id::text, i.type, count(*) FILTER (WHERE coalesce(d.decide_time, p.create_time) >= w.since)
FROM identifiers i
JOIN profiles p ON p.profile_id = i.profile_id
JOIN unnest($3::text[], $4::timestamptz[]) AS w (type, since) ON w.type = i.type
LEFT JOIN decisions d ON d.decision_id = i.decision_id
WHERE i.profile_id = ANY($1::text::uuid[]) AND p.workspace_id = $2
GROUP BY i.profile_id, i.type
"""

_INSERT_PROFILES: Final = """
INSERT INTO profiles (profile_id, workspace_id, canonical_profile_id, merges, traits, create_time)
SELECT profile_id, workspace_id, nullif(canonical, '')::uuid, merges, traits, $6
FROM unnest($1::text::uuid[], $2::text::text[], $3::text::text[], $4::int[], $5::bytea[])
    WITH ORDINALITY AS n (profile_id, workspace_id, canonical, merges, traits, position)
ORDER BY position
"""

_INSERT_IDENTIFIERS: Final = """
INSERT INTO identifiers (workspace_id, type, value, profile_id, origin_profile_id, decision_id)
SELECT workspace_id, type, value, profile_id, nullif(origin, '')::uuid, decision_id
FROM unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::uuid[], $5::text::text[], $6::bigint[])
    AS n (workspace_id, type, value, profile_id, origin, decision_id)
"""

_MOVE_IDENTIFIERS: Final = """
UPDATE identifiers i SET profile_id = m.canonical, origin_profile_id = coalesce(i.origin_profile_id, i.profile_id)
FROM unnest($1::uuid[], $2::uuid[]) AS m (merged, canonical) WHERE i.profile_id = m.merged
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
INSERT INTO merges (workspace_id, canonical_profile_id, merged_profile_id, message_id, decision_id, merge_time)
SELECT workspace_id, canonical, merged, message_id, decision_id, $6
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[])
    WITH ORDINALITY AS m (workspace_id, canonical, merged, message_id, decision_id, position)
ORDER BY position
"""

_RECONCILE: Final = """
DELETE FROM separations
WHERE (profile_id = ANY($1::uuid[]) AND other_profile_id = ANY($2::uuid[]))
    OR (profile_id = ANY($2::uuid[]) AND other_profile_id = ANY($1::uuid[]))
"""

_CANONICAL: Final = (
    "SELECT coalesce(canonical_profile_id, profile_id)::text FROM profiles WHERE workspace_id = $1 AND profile_id = $2::uuid"
)


class PostgresGraphWriter:
    """The ``GraphWriter`` inside a transaction that holds the locks of its workspaces."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def look_up(self, identifiers: Sequence[Identifier], workspace_ids: Sequence[str]) -> Lookup:
        """See ``GraphWriter``."""
        return await lookups.look_up(raw(self._connection).fetch, identifiers, workspace_ids, {})

    async def rules(self, workspace_id: str) -> Rules:
        """See ``GraphWriter``."""
        return await rules.read_rules(self._connection, workspace_id)

    async def apply_rules(self, workspace_id: str, given: Rules, now_us: int) -> None:
        """See ``GraphWriter``."""
        await rules.write_rules(self._connection, workspace_id, given, now_us)

    async def load(self, profile_ids: Iterable[str], windows: Mapping[str, Mapping[str, int]]) -> Mapping[str, Profile]:
        """See ``GraphWriter``."""
        ids = array(sorted(set(profile_ids)))
        if ids == "{}":
            return {}
        profiles = {}
        for row in await raw(self._connection).fetch(_PROFILES, ids):
            counts = dict(zip(row[4] or (), row[5] or (), strict=True))
            parts, documents = list(row[6] or ()), list(row[7] or ())
            profiles[row[0]] = Profile(
                row[0], row[1], row[2], counts, sum(counts.values()), row[3], parts, documents, frozenset(row[8] or ())
            )
        for workspace_id, since in windows.items():
            await self._count_recent(ids, workspace_id, since, profiles)
        return profiles

    async def _count_recent(self, ids: str, workspace_id: str, since: Mapping[str, int], profiles: Mapping[str, Profile]) -> None:
        """Lets only those identifiers of a type count that were added within its window."""
        moments = [moment(time_us) for time_us in since.values()]
        for profile_id, kind, number in await raw(self._connection).fetch(_RECENT, ids, workspace_id, list(since), moments):
            profiles[profile_id].counts[kind] = number

    async def canonical_id(self, workspace_id: str, profile_id: str) -> str | None:
        """See ``GraphWriter``."""
        found: str | None = await raw(self._connection).fetchval(_CANONICAL, workspace_id, profile_id)
        return found

    async def save(self, changes: Changes, now_us: int) -> None:
        """See ``GraphWriter``."""
        now, told = moment(now_us), Announcements(moment(now_us))
        driver = raw(self._connection)
        # While the server does a statement, what comes after it is made ready here.
        record = decisions.record(self._connection, changes.decisions, now)
        numbers, profiles = await _meanwhile(record, partial(_profile_columns, changes.created))
        insert = self._insert(_INSERT_PROFILES, changes.created, *profiles, now)
        _, identifiers = await _meanwhile(insert, partial(_identifier_columns, changes.identifiers, numbers))
        insert = self._insert(_INSERT_IDENTIFIERS, changes.identifiers, *identifiers)
        await _meanwhile(insert, partial(told.batch, changes))
        if changes.moved:
            merged = [profile.profile_id for profile in changes.moved]
            canonical = [profile.canonical.profile_id for profile in changes.moved]
            await driver.execute(_MOVE_IDENTIFIERS, merged, canonical)
            await driver.execute(_MOVE_PROFILES, merged, canonical)
        if changes.updated:
            await driver.execute(
                _UPDATE_PROFILES,
                [profile.profile_id for profile in changes.updated],
                [len(profile.parts) for profile in changes.updated],
                [profile.rendered() for profile in changes.updated],
            )
        for one, other in changes.reconciled:
            await driver.execute(_RECONCILE, one, other)
        if changes.merges:
            await self._log(changes, numbers, now)
        if changes.moved:
            told.traits(await recompute(self._connection, [profile.canonical.profile_id for profile in changes.moved], now_us))
        await enqueue(self._connection, told.messages())

    async def whole(self, workspace_id: str, profile_id: str) -> Whole:
        """See ``GraphWriter``."""
        return await separations.whole(self._connection, workspace_id, profile_id)

    async def separate(self, separation: Separation, decision: Decision, now_us: int) -> None:
        """See ``GraphWriter``."""
        await separations.separate(self._connection, separation, decision, moment(now_us))

    async def decision_of_request(self, workspace_id: str, request_id: str, kind: str) -> Decision | None:
        """See ``GraphWriter``."""
        return await decisions.of_message(self._connection, workspace_id, request_id, kind)

    async def _insert(self, statement: str, rows: Sequence[object], *columns: object) -> None:
        """Fresh rows, if there are any. A unique violation would mean that somebody wrote without the lock: a bug."""
        if rows:
            await raw(self._connection).execute(statement, *columns)

    async def _log(self, changes: Changes, numbers: Sequence[int], now: datetime) -> None:
        await raw(self._connection).execute(
            _INSERT_MERGES,
            [merge.workspace_id for merge in changes.merges],
            [merge.canonical_profile_id for merge in changes.merges],
            [merge.merged_profile_id for merge in changes.merges],
            [text(merge.message_id) for merge in changes.merges],
            [numbers[merge.decision] for merge in changes.merges],
            now,
        )


def _profile_columns(created: Sequence[Profile]) -> tuple[object, ...]:
    """Of ``_INSERT_PROFILES``."""
    return (
        array([profile.profile_id for profile in created]),
        array([profile.workspace_id for profile in created]),
        array(["" if profile.into is None else profile.canonical.profile_id for profile in created]),
        [len(profile.parts) for profile in created],
        [profile.rendered() for profile in created],
    )


def _identifier_columns(added: Sequence[tuple[Identifier, Profile, int]], numbers: Sequence[int]) -> tuple[object, ...]:
    """Of ``_INSERT_IDENTIFIERS``; the numbers are those of the decisions."""
    return (
        *columns([identifier for identifier, _, _ in added]),
        array([profile.canonical.profile_id for _, profile, _ in added]),
        array(["" if profile.into is None else profile.profile_id for _, profile, _ in added]),
        [numbers[decision] for _, _, decision in added],
    )


async def _meanwhile(statement: Coroutine[Any, Any, R], work: Callable[[], T]) -> tuple[R, T]:
    """Does work here while the server does a statement, and returns what both give; raises what either raises, when both are over."""
    under_way = asyncio.ensure_future(statement)
    try:
        for _ in range(_TURNS_UNTIL_SENT):
            await asyncio.sleep(0)
        done = work()
    finally:
        answer = await under_way
    return answer, done
