"""Taking persons apart in Postgres. An operator's rare act: some statements more or less do not matter here."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.domain.changes import CanonicalEntry
from cdi_identity.domain.decisions import Decision
from cdi_identity.domain.identifiers import fingerprint
from cdi_identity.domain.separation import Part, Separation, Whole
from cdi_identity.store import decisions
from cdi_identity.store.announcing import CREATED, REMOVED, Announcement
from cdi_identity.store.computed_values import recompute
from cdi_identity.store.literals import columns, microseconds
from cdi_runtime.store import enqueue, raw

# A profile of the first schema may have been merged twice in the log of one batch: the last one that stands is its parent.
_PARTS: Final = """
SELECT p.profile_id::text, p.ordinal, p.traits, (
    SELECT m.canonical_profile_id::text FROM merges m WHERE m.merged_profile_id = p.profile_id AND NOT m.undone
    ORDER BY m.merge_id DESC LIMIT 1
)
FROM profiles p WHERE p.profile_id = $1::uuid OR p.canonical_profile_id = $1::uuid ORDER BY p.ordinal
"""

_ORIGINS: Final = """
SELECT workspace_id, type, value, coalesce(origin_profile_id, profile_id)::text
FROM identifiers WHERE profile_id = $1::uuid ORDER BY type, value
"""

_FOES: Final = "SELECT DISTINCT other_profile_id::text FROM separations WHERE profile_id = ANY($1::uuid[])"

_MAKE: Final = """
INSERT INTO profiles (profile_id, workspace_id, canonical_profile_id, merges, traits, create_time) VALUES ($1::uuid, $2, NULL, 0, '', $3)
"""

_POINT: Final = """
UPDATE profiles SET canonical_profile_id = nullif($2::uuid, profile_id) WHERE profile_id = ANY($1::uuid[])
"""

_COUNT: Final = "UPDATE profiles SET merges = $2 WHERE profile_id = $1::uuid"

_DOCUMENT: Final = (
    "UPDATE profiles p SET traits = n.traits FROM unnest($1::uuid[], $2::bytea[]) AS n (id, traits) WHERE p.profile_id = n.id"
)

# What is taken from its profile names its new one as origin: ``decisions`` finds by that what a decision added.
_MOVE: Final = """
UPDATE identifiers i SET profile_id = $4::uuid, origin_profile_id = CASE WHEN $5 THEN $4::uuid ELSE i.origin_profile_id END
FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) AS k (workspace_id, type, value)
WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[k.workspace_id, k.type, k.value]
"""

_UNDO: Final = "UPDATE merges SET undone = true WHERE merged_profile_id = $1::uuid AND NOT undone"

_APART: Final = """
INSERT INTO separations (profile_id, other_profile_id, decision_id)
SELECT a, b, $3::bigint FROM unnest($1::uuid[], $2::uuid[]) AS s (a, b)
UNION SELECT b, a, $3::bigint FROM unnest($1::uuid[], $2::uuid[]) AS s (a, b)
ON CONFLICT (profile_id, other_profile_id) DO UPDATE SET decision_id = excluded.decision_id
"""

# What events gave to computed traits goes with their strongest identifier.
_MOVE_COUNTED: Final = """
WITH parts AS MATERIALIZED (SELECT profile_id FROM profiles WHERE profile_id = $1::uuid OR canonical_profile_id = $1::uuid), c AS (
    UPDATE contributions c SET profile_id = $2::uuid FROM parts
    WHERE c.profile_id = parts.profile_id AND c.fingerprint = ANY($3::bigint[])
)
UPDATE tallies y SET profile_id = $2::uuid FROM parts WHERE y.profile_id = parts.profile_id AND y.fingerprint = ANY($3::bigint[])
"""

_SPLITS: Final = """
INSERT INTO workspaces (workspace_id, splits) VALUES ($1, 1) ON CONFLICT (workspace_id) DO UPDATE SET splits = workspaces.splits + 1
"""


async def whole(connection: AsyncConnection, workspace_id: str, profile_id: str) -> Whole:
    """A person with all that it is made of, by its canonical id."""
    driver = raw(connection)
    parts = [Part(row[0], row[1], row[2], row[3]) for row in await driver.fetch(_PARTS, profile_id)]
    origins = {(row[0], row[1], row[2]): row[3] for row in await driver.fetch(_ORIGINS, profile_id)}
    foes = frozenset(row[0] for row in await driver.fetch(_FOES, [part.profile_id for part in parts]))
    return Whole(workspace_id, profile_id, parts, origins, foes)


async def separate(connection: AsyncConnection, separation: Separation, decision: Decision, now: datetime) -> None:
    """Writes a separation, its decision, the new number of splits, and what is to be told of it."""
    driver = raw(connection)
    [number] = await decisions.record(connection, [decision], now)
    if separation.fresh:
        await driver.execute(_MAKE, separation.separated_id, separation.workspace_id, now)
    else:
        await driver.execute(_UNDO, separation.separated_id)
        await driver.execute(_POINT, separation.part_ids, separation.separated_id)
    await driver.execute(_COUNT, separation.remaining_id, separation.remaining_merges)
    # What is stored there may be of before a part of it left on its own.
    await driver.execute(_COUNT, separation.separated_id, len(separation.part_ids) - 1)
    if separation.documents:
        await driver.execute(_DOCUMENT, list(separation.documents), list(separation.documents.values()))
    if separation.identifiers:
        await driver.execute(_MOVE, *columns(separation.identifiers), separation.separated_id, separation.fresh)
    if separation.fresh:
        fingerprints = [fingerprint(identifier) for identifier in separation.identifiers]
        await driver.execute(_MOVE_COUNTED, separation.remaining_id, separation.separated_id, fingerprints)
    await driver.execute(_APART, [one for one, _ in separation.apart], [other for _, other in separation.apart], number)
    await driver.execute(_SPLITS, separation.workspace_id)
    announcement = Announcement(separation.workspace_id, now)
    for part_id in separation.part_ids:
        announcement.canonical(CanonicalEntry(separation.workspace_id, part_id, separation.separated_id, decision.cause))
    if separation.fresh:
        # Undoing a merge moves no mapping: the canonicals say whose they are.
        for identifier in separation.identifiers:
            announcement.mapping(identifier, separation.remaining_id, REMOVED, decision.cause.message_id)
            announcement.mapping(identifier, separation.separated_id, CREATED, decision.cause.message_id)
    computed = await recompute(connection, [separation.remaining_id, separation.separated_id], microseconds(now))
    for trait in (*separation.traits, *computed):
        announcement.trait(trait, decision.cause.message_id)
    await enqueue(connection, announcement.messages())
