"""The values of computed traits in Postgres: put together anew from the contributions of a person, in one statement for all persons.

Numbers are ``numeric``: exact. What a person is made of, ``profiles`` says: so a merge or its undoing moves no contribution, it only has
these values put together again. The caller holds the workspaces' locks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.domain.changes import TraitEntry
from cdi_identity.domain.traits import Source, Trait
from cdi_identity.store.literals import array, moment
from cdi_runtime.store import raw

# $1 are ids of profiles, canonical or not, $2 is the time. The numbers are those of ``domain.computed_traits.Aggregation``. All aggregates
# of a group run, whichever is asked for: the filters leave them nothing to do. Of equally frequent values mode() takes the first.
COMPUTED: Final = """
persons AS MATERIALIZED (
    SELECT DISTINCT coalesce(p.canonical_profile_id, p.profile_id) AS profile_id FROM profiles p WHERE p.profile_id = ANY($1::text::uuid[])
), parts AS MATERIALIZED (
    SELECT profile_id, profile_id AS part_id FROM persons
    UNION ALL
    SELECT persons.profile_id, m.profile_id FROM persons JOIN profiles m ON m.canonical_profile_id = persons.profile_id
), computed AS MATERIALIZED (
    SELECT parts.profile_id, t.trait_id, t.workspace_id, t.name, CASE t.aggregation
        WHEN 1 THEN count(*)::text
        WHEN 2 THEN trim_scale(sum(CASE WHEN t.aggregation = 2 THEN c.value::numeric END))::text
        WHEN 3 THEN trim_scale(avg(CASE WHEN t.aggregation = 3 THEN c.value::numeric END))::text
        WHEN 4 THEN trim_scale(min(CASE WHEN t.aggregation = 4 THEN c.value::numeric END))::text
        WHEN 5 THEN trim_scale(max(CASE WHEN t.aggregation = 5 THEN c.value::numeric END))::text
        WHEN 6 THEN mode() WITHIN GROUP (ORDER BY c.value) FILTER (WHERE t.aggregation = 6)
        WHEN 7 THEN (array_agg(c.value ORDER BY c.event_time, c.message_id) FILTER (WHERE t.aggregation = 7))[1]
        WHEN 8 THEN (array_agg(c.value ORDER BY c.event_time DESC, c.message_id DESC) FILTER (WHERE t.aggregation = 8))[1]
        WHEN 9 THEN '[' || array_to_string(
            (array_agg(DISTINCT c.value ORDER BY c.value) FILTER (WHERE t.aggregation = 9))[1:100], ','
        ) || ']'
        WHEN 10 THEN (count(DISTINCT c.value) FILTER (WHERE t.aggregation = 10))::text
    END AS value, min(c.event_time) + t.window_us * interval '1 microsecond' AS due_time
    FROM parts JOIN contributions c ON c.profile_id = parts.part_id JOIN computed_traits t ON t.trait_id = c.trait_id
    WHERE NOT t.retired AND (t.window_us IS NULL OR c.event_time >= $2::timestamptz - t.window_us * interval '1 microsecond')
    GROUP BY parts.profile_id, t.trait_id
)
"""

# Told is what has another value, and what a part of the person had of its own before a merge: the newest that was told of any part is
# what others take for the person's. A value of an older definition of the same name is not taken away where the newer one has one.
_RECOMPUTE: Final = f"""
WITH {COMPUTED}, gone AS (
    DELETE FROM computed_values v USING parts, computed_traits t
    WHERE v.profile_id = parts.part_id AND t.trait_id = v.trait_id
        AND (v.profile_id, v.trait_id) NOT IN (SELECT n.profile_id, n.trait_id FROM computed n)
    RETURNING parts.profile_id, t.workspace_id, t.name
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
    OR (profile_id, name) IN (SELECT profile_id, name FROM gone)
UNION ALL
SELECT DISTINCT workspace_id, profile_id::text, name, NULL FROM gone
WHERE (profile_id, name) NOT IN (SELECT profile_id, name FROM computed)
"""

# The document of the traits that are computed for the profile p (``domain.traits.COMPUTED``); NULL: none.
DOCUMENT: Final = """(
    SELECT convert_to('={' || string_agg(
        to_json(t.name)::text || ':[' || (extract(epoch FROM v.update_time) * 1000000)::bigint || ',' || v.value || ']', ',' ORDER BY t.name
    ) || '}', 'UTF8')
    FROM computed_values v JOIN computed_traits t ON t.trait_id = v.trait_id AND NOT t.retired WHERE v.profile_id = p.profile_id
)"""


async def recompute(connection: AsyncConnection, profile_ids: Collection[str], now_us: int) -> list[TraitEntry]:
    """Brings the values of the persons that some profiles are part of up to date. Returns what is to be told of them."""
    now = moment(now_us)
    rows = await raw(connection).fetch(_RECOMPUTE, array(sorted(set(profile_ids))), now)
    return [
        TraitEntry(row[0], row[1], row[2], None if row[3] is None else Trait(Source(now_us), msgspec.Raw(row[3].encode()))) for row in rows
    ]
