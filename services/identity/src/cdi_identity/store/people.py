"""People of the graph, a page after the other: who fulfils conditions, with what an export needs of them.

A page is a range of profile ids (keyset), so that no statement runs long whatever fits; its rows come through a cursor, a few at a time,
and are reduced at once: a trait document may have megabytes. No transaction is open while the caller works on a page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from cdi_identity.domain.audiences import CONTACTS, Condition, contacts, selected
from cdi_identity.ports import Candidate
from cdi_identity.store.computed_values import DOCUMENT
from cdi_runtime.store import Database, raw

PAGE_PROFILES: Final = 500
"""Profiles that one page looks at."""

PREFETCHED: Final = 50
"""Rows that wait in memory."""

SUBJECT_TYPES: Final = ("user_id", "anonymous_id")
"""Of the ids by which consent knows people."""

_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

# Qualified: the bare name in ORDER BY would be the text that is selected, and all profiles would be sorted for each page.
_END_OF_PAGE: Final = "SELECT p.profile_id::text FROM profiles p WHERE p.profile_id > $1::uuid ORDER BY p.profile_id OFFSET $2 LIMIT 1"

# A person's traits are those of all profiles that are part of it, and those that are computed.
_PEOPLE: Final = f"""
SELECT p.profile_id::text, d.documents, (
    SELECT array_agg(ARRAY[i.type, i.value] ORDER BY i.type, i.value)
    FROM identifiers i WHERE i.profile_id = p.profile_id AND i.type = ANY($2::text[])
)
FROM profiles p, LATERAL (
    SELECT array_remove(ARRAY[p.traits, {DOCUMENT}], NULL) || CASE WHEN p.merges > 0 THEN ARRAY(
        SELECT m.traits FROM profiles m WHERE m.canonical_profile_id = p.profile_id ORDER BY m.ordinal
    ) END AS documents
) d
WHERE p.workspace_id = $1 AND p.canonical_profile_id IS NULL
    AND NOT EXISTS (
        SELECT FROM unnest($3::bytea[]) AS needed
        WHERE NOT EXISTS (SELECT FROM unnest(d.documents) AS document WHERE position(needed IN document) > 0)
    )
    AND """
_OF_RANGE: Final = _PEOPLE + "p.profile_id > $4::uuid AND p.profile_id <= $5::uuid"
_OF_IDS: Final = _PEOPLE + "p.profile_id = ANY($4::uuid[])"

_CANONICAL: Final = """
SELECT DISTINCT coalesce(canonical_profile_id, profile_id)::text FROM profiles WHERE workspace_id = $1 AND profile_id = ANY($2::uuid[])
"""


class PostgresPeople:
    """The ``PeopleStore`` on one service's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pages(
        self, workspace_id: str, profile_ids: Sequence[str] | None, conditions: Sequence[Condition]
    ) -> AsyncIterator[list[Candidate]]:
        """See ``PeopleStore``."""
        if profile_ids is None:
            after: str | None = _FIRST
            while after is not None:
                end = await self._end_of_page(after)
                yield await self._read(_OF_RANGE, workspace_id, conditions, after, end or _LAST)
                after = end
            return
        canonical = await self._canonical(workspace_id, profile_ids)
        for start in range(0, len(canonical), PAGE_PROFILES):
            yield await self._read(_OF_IDS, workspace_id, conditions, canonical[start : start + PAGE_PROFILES])

    async def _end_of_page(self, after: str) -> str | None:
        async with self._database.session() as connection:
            found: str | None = await raw(connection).fetchval(_END_OF_PAGE, after, PAGE_PROFILES - 1)
        return found

    async def _canonical(self, workspace_id: str, profile_ids: Sequence[str]) -> list[str]:
        async with self._database.session() as connection:
            rows = await raw(connection).fetch(_CANONICAL, workspace_id, profile_ids)
        return sorted(row[0] for row in rows)

    async def _read(self, statement: str, workspace_id: str, conditions: Sequence[Condition], *arguments: Any) -> list[Candidate]:
        types, needed = [*CONTACTS, *SUBJECT_TYPES], [condition.marker for condition in conditions]
        page: list[Candidate] = []
        async with self._database.transaction() as connection:
            async for row in raw(connection).cursor(statement, workspace_id, types, needed, *arguments, prefetch=PREFETCHED):
                profile_id, documents, pairs = row
                known = selected(documents, conditions)
                if known is not None:
                    identifiers = [(kind, value) for kind, value in pairs or ()]
                    subjects = [pair for pair in identifiers if pair[0] in SUBJECT_TYPES]
                    page.append(Candidate(profile_id, contacts(identifiers, known), subjects))
        return page
