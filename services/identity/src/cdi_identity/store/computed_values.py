"""The values of computed traits in Postgres: put together anew from what is stored for the parts of a person, in one statement for all.

Stored are tallies, one per definition and identifier, and for definitions with a window one row per event. Numbers are ``numeric``: exact.
What a person is made of, ``profiles`` says: so a merge or its undoing moves nothing, it only has these values put together again. The
caller holds the workspaces' locks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.domain.changes import TraitEntry
from cdi_identity.domain.traits import Source, Trait, combined
from cdi_identity.store.literals import array, documents, moment
from cdi_runtime.store import raw

# What events come to, of rows with aggregation, value, event_time and message_id; the numbers are those of
# ``domain.computed_traits.Aggregation``. The first and the last event are told by arrays of time, message id and value, sorted as texts.
_NUMBER: Final = "CASE WHEN aggregation IN (2, 3, 4, 5) THEN value::numeric END"
_EDGE: Final = """CASE WHEN aggregation IN (7, 8) THEN
        ARRAY[((extract(epoch FROM event_time) * 1000000)::bigint + 100000000000000000)::text, message_id, value] COLLATE "C"
    END"""
KEY: Final = "CASE WHEN aggregation IN (6, 9, 10) THEN value ELSE '' END"
STATE: Final = f"""count(*) AS number,
    CASE aggregation WHEN 4 THEN min({_NUMBER}) WHEN 5 THEN max({_NUMBER}) ELSE sum({_NUMBER}) END AS amount,
    CASE aggregation WHEN 7 THEN min({_EDGE}) WHEN 8 THEN max({_EDGE}) END AS edge"""

# $1 are ids of profiles, canonical or not, $2 is the time. OFFSET 0 holds a lookup by key together: otherwise a plan that was made while
# the tables were small would read them whole.
COMPUTED: Final = f"""
persons AS MATERIALIZED (
    SELECT DISTINCT coalesce(p.canonical_profile_id, p.profile_id) AS profile_id FROM profiles p WHERE p.profile_id = ANY($1::text::uuid[])
), parts AS MATERIALIZED (
    SELECT profile_id, profile_id AS part_id FROM persons
    UNION ALL
    SELECT persons.profile_id, m.profile_id
    FROM persons, LATERAL (SELECT m.profile_id FROM profiles m WHERE m.canonical_profile_id = persons.profile_id OFFSET 0) m
), gathered AS (
    SELECT parts.profile_id, y.trait_id, y.value, y.number, y.amount, y.edge, NULL::timestamptz AS oldest
    FROM parts, LATERAL (SELECT * FROM tallies y WHERE y.profile_id = parts.part_id OFFSET 0) y
    UNION ALL
    SELECT profile_id, trait_id, {KEY}, {STATE}, min(event_time) FROM (
        SELECT parts.profile_id, t.trait_id, t.aggregation, c.value, c.event_time, c.message_id
        FROM parts, LATERAL (SELECT * FROM contributions c WHERE c.profile_id = parts.part_id OFFSET 0) c
        JOIN computed_traits t ON t.trait_id = c.trait_id
        WHERE c.event_time >= $2::timestamptz - t.window_us * interval '1 microsecond'
    ) w GROUP BY profile_id, trait_id, {KEY}, aggregation
), by_value AS (
    SELECT profile_id, trait_id, value, sum(number) AS number, sum(amount) AS total, min(amount) AS least, max(amount) AS greatest,
        min(edge) AS earliest, max(edge) AS latest, min(oldest) AS oldest
    FROM gathered GROUP BY profile_id, trait_id, value
), computed AS MATERIALIZED (
    SELECT b.profile_id, t.trait_id, t.workspace_id, t.name, CASE t.aggregation
        WHEN 1 THEN sum(b.number)::text
        WHEN 2 THEN trim_scale(sum(b.total))::text
        WHEN 3 THEN trim_scale(sum(b.total) / sum(b.number))::text
        WHEN 4 THEN trim_scale(min(b.least))::text
        WHEN 5 THEN trim_scale(max(b.greatest))::text
        WHEN 6 THEN (array_agg(b.value ORDER BY b.number DESC, b.value))[1]
        WHEN 7 THEN (min(b.earliest))[3]
        WHEN 8 THEN (max(b.latest))[3]
        WHEN 9 THEN '[' || array_to_string((array_agg(b.value ORDER BY b.value))[1:100], ',') || ']'
        WHEN 10 THEN count(*)::text
    END AS value, min(b.oldest) + t.window_us * interval '1 microsecond' AS due_time
    FROM by_value b JOIN computed_traits t ON t.trait_id = b.trait_id AND NOT t.retired
    GROUP BY b.profile_id, t.trait_id
)
"""

# Told is what has another value, and what a part of the person had of its own before a merge: the newest that was told of any part is
# what others take for the person's. A value of an older definition of the same name is not taken away where the newer one has one.
_RECOMPUTE: Final = f"""
WITH {COMPUTED}, outdated AS MATERIALIZED (
    SELECT parts.profile_id, t.workspace_id, t.name, v.place
    FROM parts, LATERAL (SELECT v.ctid AS place, v.trait_id FROM computed_values v WHERE v.profile_id = parts.part_id OFFSET 0) v
    JOIN computed_traits t ON t.trait_id = v.trait_id
    WHERE (parts.part_id, v.trait_id) NOT IN (SELECT profile_id, trait_id FROM computed)
), removed AS (
    DELETE FROM computed_values WHERE ctid = ANY(ARRAY(SELECT place FROM outdated))
), stored AS (
    INSERT INTO computed_values AS v (profile_id, trait_id, value, update_time, due_time)
    SELECT profile_id, trait_id, value, $2, due_time FROM computed
    ON CONFLICT (profile_id, trait_id) DO UPDATE SET value = excluded.value, due_time = excluded.due_time,
        update_time = CASE WHEN v.value = excluded.value THEN v.update_time ELSE excluded.update_time END
    WHERE v.value <> excluded.value OR v.due_time IS DISTINCT FROM excluded.due_time
    RETURNING v.profile_id, v.trait_id, v.update_time
)
SELECT workspace_id, profile_id::text, name, value FROM computed
WHERE (profile_id, trait_id) IN (SELECT profile_id, trait_id FROM stored WHERE update_time = $2)
    OR (profile_id, name) IN (SELECT profile_id, name FROM outdated)
UNION ALL
SELECT DISTINCT workspace_id, profile_id::text, name, NULL FROM outdated
WHERE (profile_id, name) NOT IN (SELECT profile_id, name FROM computed)
"""

# The document of the traits that are computed for the profile p (``domain.traits.COMPUTED``); NULL: none.
DOCUMENT: Final = """(
    SELECT convert_to('={' || string_agg(
        to_json(t.name)::text || ':[' || (extract(epoch FROM v.update_time) * 1000000)::bigint || ',' || v.value || ']', ',' ORDER BY t.name
    ) || '}', 'UTF8')
    FROM computed_values v JOIN computed_traits t ON t.trait_id = v.trait_id AND NOT t.retired WHERE v.profile_id = p.profile_id
)"""


# The documents of a person's traits, as ``literals.documents`` reads them.
DOCUMENTS: Final = f"""
SELECT p.profile_id::text, p.traits, CASE WHEN p.merges > 0 THEN
    (SELECT array_agg(m.traits ORDER BY m.ordinal) FROM profiles m WHERE m.canonical_profile_id = p.profile_id)
END AS documents, {DOCUMENT} AS computed
FROM profiles p WHERE p.profile_id = ANY($1::text::uuid[])
"""

_PREFETCHED: Final = 50
"""Documents that wait in memory; one may have megabytes."""


async def recompute(connection: AsyncConnection, profile_ids: Collection[str], now_us: int) -> list[TraitEntry]:
    """Brings the values of the persons that some profiles are part of up to date. Returns what is to be told of them.

    Where a value has gone, a trait of its name that events brought is the person's again.
    """
    rows = await raw(connection).fetch(_RECOMPUTE, array(sorted(set(profile_ids))), moment(now_us))
    brought = await _brought(connection, {(row[1], row[2]) for row in rows if row[3] is None})
    entries = []
    for workspace_id, profile_id, name, value in rows:
        trait = brought.get((profile_id, name)) if value is None else Trait(Source(now_us), msgspec.Raw(value.encode()))
        entries.append(TraitEntry(workspace_id, profile_id, name, trait))
    return entries


async def _brought(connection: AsyncConnection, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], Trait]:
    """Of some persons, by canonical id and name, the traits that are there."""
    names: dict[str, list[str]] = {}
    for profile_id, name in wanted:
        names.setdefault(profile_id, []).append(name)
    found: dict[tuple[str, str], Trait] = {}
    if names:
        async for row in raw(connection).cursor(DOCUMENTS, array(list(names)), prefetch=_PREFETCHED):
            traits = combined(documents(row))
            found |= {(row[0], name): traits[name] for name in names[row[0]] if name in traits}
    return found
