"""Profiles for reading: one statement per call, whatever the number of keys, and no transaction around it.

A statement is one snapshot by itself; BEGIN and COMMIT would be two more round trips. The texts are constant, so the driver prepares each
once per connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cdi.error.v1 import error_pb2
from cdi_identity.domain.history import Key
from cdi_identity.ports import Page, StoredLink, StoredProfile
from cdi_identity.store.computed_values import DOCUMENT
from cdi_identity.store.gathering import Asked, Gathering
from cdi_identity.store.literals import columns, documents, microseconds
from cdi_kernel.faults import TooLarge
from cdi_runtime.store import Readers

MAX_ANSWER_BYTES: Final = 6 * 1024 * 1024
"""Stored traits and identifiers of all profiles of one answer, at most. With their provenance traits are in an answer twice, and a gRPC
message holds 16 MiB."""

# $1, $2 and $3 are workspaces, types and values of keys; the empty type is that of a profile id (``domain.history``).
_KEYS: Final = """
WITH keys AS MATERIALIZED (SELECT k.position, CASE WHEN k.type = ''
    THEN (
        SELECT coalesce(p.canonical_profile_id, p.profile_id)
        FROM profiles p WHERE p.profile_id = k.value::uuid AND p.workspace_id = k.workspace_id
    )
    ELSE (SELECT i.profile_id FROM identifiers i WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[k.workspace_id, k.type, k.value])
    END AS profile_id
FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) WITH ORDINALITY AS k (workspace_id, type, value, position))
"""

_COLUMNS: Final = f"""
p.profile_id::text, p.workspace_id, (extract(epoch FROM p.create_time) * 1000000)::bigint AS create_us,
(SELECT array_agg(ARRAY[i.type, i.value] ORDER BY i.type, i.value) FROM identifiers i WHERE i.profile_id = p.profile_id) AS identifiers,
m.merged, m.documents, {DOCUMENT} AS computed
"""
_MERGED: Final = """
LATERAL (
    SELECT array_agg(m.profile_id::text ORDER BY m.ordinal) AS merged, array_agg(m.traits ORDER BY m.ordinal) AS documents
    FROM profiles m WHERE p.merges > 0 AND m.canonical_profile_id = p.profile_id
) m
"""

# Traits stand outside of the row (TOAST) when they are large: their length is known without reading them.
_SIZE: Final = """
octet_length(p.traits)
+ (SELECT coalesce(sum(octet_length(m.traits)), 0) FROM profiles m WHERE p.merges > 0 AND m.canonical_profile_id = p.profile_id)
+ (SELECT coalesce(sum(octet_length(v.value) + 50), 0) FROM computed_values v WHERE v.profile_id = p.profile_id)
+ (SELECT coalesce(sum(octet_length(i.type) + octet_length(i.value) + 16), 0) FROM identifiers i WHERE i.profile_id = p.profile_id)
"""

# In the order of the keys as many profiles as fit, and the first one in any case; of the others only their positions.
_FIND: Final = f"""
{_KEYS}
SELECT {_COLUMNS}, p.traits, f.positions, f.size <= $4 AS fits
FROM (
    SELECT p.profile_id, k.positions, row_number() OVER (ORDER BY k.first) AS number,
        sum(cardinality(k.positions) * ({_SIZE})) OVER (ORDER BY k.first) AS size
    FROM (
        SELECT profile_id, array_agg(position) AS positions, min(position) AS first
        FROM keys WHERE profile_id IS NOT NULL GROUP BY profile_id
    ) k JOIN profiles p ON p.profile_id = k.profile_id
) f LEFT JOIN (profiles p CROSS JOIN {_MERGED}) ON (f.size <= $4 OR f.number = 1) AND p.profile_id = f.profile_id
"""

# One more than asked for tells whether there are more. The first is always taken, so that a page of large profiles goes on.
_PAGE: Final = f"""
SELECT {_COLUMNS}, p.ordinal, p.traits, a.number
FROM (
    SELECT o.profile_id, count(*) OVER () AS number, sum(o.size) OVER (ORDER BY o.ordinal ROWS UNBOUNDED PRECEDING) AS size,
        row_number() OVER (ORDER BY o.ordinal) AS position
    FROM (
        SELECT p.profile_id, p.ordinal, {_SIZE} AS size FROM profiles p
        WHERE p.workspace_id = $1 AND p.canonical_profile_id IS NULL AND p.ordinal > $2 ORDER BY p.ordinal LIMIT $3 + 1
    ) o
) a JOIN profiles p ON p.profile_id = a.profile_id, {_MERGED}
WHERE a.position <= $3 AND (a.size <= $4 OR a.position = 1) ORDER BY a.position
"""

_LINKS: Final = f"""
{_KEYS}
SELECT k.profile_id, i.type, i.value, d.decide_time, d.message_id
FROM keys k LEFT JOIN identifiers i ON i.profile_id = k.profile_id LEFT JOIN decisions d ON d.decision_id = i.decision_id
WHERE k.profile_id IS NOT NULL ORDER BY i.type, i.value
"""

_OWNERS: Final = f"{_KEYS} SELECT array_agg(profile_id::text ORDER BY position) FROM keys"


class PostgresProfiles:
    """The ``ProfileStore`` on one service's database."""

    def __init__(self, readers: Readers) -> None:
        self._fetch = readers.fetch
        self._gathering = Gathering(self._fitting)

    async def one(self, workspace_id: str, key: Key) -> StoredProfile | None:
        """See ``ProfileStore``."""
        return await self._gathering.one((workspace_id, *key))

    async def find(self, workspace_id: str, keys: Sequence[Key]) -> Sequence[StoredProfile | None]:
        """See ``ProfileStore``."""
        found: list[StoredProfile | None] = [None] * len(keys)
        rows = await self._fetch(_FIND, *_columns(workspace_id, keys), MAX_ANSWER_BYTES)
        if not all(row["fits"] for row in rows):
            raise TooLarge(
                error_pb2.ERROR_REASON_TOO_LARGE,
                f"these profiles are over {MAX_ANSWER_BYTES} bytes; ask for fewer at once",
                metadata={"limit": str(MAX_ANSWER_BYTES)},
            )
        for row in rows:
            profile = _profile(row)
            for position in row["positions"]:
                found[position - 1] = profile
        return found

    async def _fitting(self, keys: Sequence[Asked]) -> Mapping[int, StoredProfile | None]:
        """See ``gathering.Read``."""
        found: dict[int, StoredProfile | None] = dict.fromkeys(range(len(keys)))
        for row in await self._fetch(_FIND, *columns(keys), MAX_ANSWER_BYTES):
            if row["profile_id"] is None:
                for position in row["positions"]:
                    del found[position - 1]
            else:
                found.update(dict.fromkeys((position - 1 for position in row["positions"]), _profile(row)))
        return found

    async def page(self, workspace_id: str, after: int, limit: int) -> Page[StoredProfile]:
        """See ``ProfileStore``."""
        rows = await self._fetch(_PAGE, workspace_id, after, limit, MAX_ANSWER_BYTES)
        more = bool(rows) and rows[0]["number"] > len(rows)
        return Page([_profile(row) for row in rows], rows[-1]["ordinal"] if more else None)

    async def links(self, workspace_id: str, key: Key) -> Sequence[StoredLink] | None:
        """See ``ProfileStore``."""
        rows = await self._fetch(_LINKS, *_columns(workspace_id, [key]))
        if not rows:
            return None
        return [_link(workspace_id, row) for row in rows if row["type"] is not None]

    async def owners(self, workspace_id: str, keys: Sequence[Key]) -> Sequence[str | None]:
        """See ``ProfileStore``."""
        [[owners]] = await self._fetch(_OWNERS, *_columns(workspace_id, keys))
        return owners or []


def _columns(workspace_id: str, keys: Sequence[Key]) -> tuple[str, str, str]:
    return columns([(workspace_id, kind, value) for kind, value in keys])


def _profile(row: Any) -> StoredProfile:
    return StoredProfile(
        profile_id=row["profile_id"],
        workspace_id=row["workspace_id"],
        identifiers=[(row["workspace_id"], kind, value) for kind, value in row["identifiers"] or ()],
        documents=documents(row),
        merged_profile_ids=row["merged"] or [],
        create_us=row["create_us"],
    )


def _link(workspace_id: str, row: Any) -> StoredLink:
    added = row["decide_time"]
    return StoredLink((workspace_id, row["type"], row["value"]), 0 if added is None else microseconds(added), row["message_id"] or "")
