"""Reading identifiers, the standing of workspaces and what was merged in them: one statement, one snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import Lookup, Merges, Standing
from cdi_identity.store.literals import array, columns

# Many strings travel as one text each way (``literals.array``, string_agg). An identifier is found as an array: that is the key of its
# hash index.
_LOOK_UP: Final = """
SELECT (
    SELECT string_agg(coalesce(
        (
            SELECT i.profile_id::text FROM identifiers i
            WHERE ARRAY[i.workspace_id, i.type, i.value] = ARRAY[k.workspace_id, k.type, k.value]
        ), ''
    ), ',' ORDER BY k.position)
    FROM unnest($1::text::text[], $2::text::text[], $3::text::text[]) WITH ORDINALITY AS k (workspace_id, type, value, position)
), (
    SELECT string_agg(concat_ws(':',
        coalesce((
            SELECT concat_ws(
                ':', w.rules_version, w.splits, CASE WHEN w.erase_time > now() - interval '1 hour' THEN w.tombstones ELSE 0 END
            )
            FROM workspaces w WHERE w.workspace_id = k.workspace_id
        ), '0:0:0'),
        coalesce((SELECT max(m.merge_id) FROM merges m WHERE m.workspace_id = k.workspace_id), 0),
        (
            SELECT string_agg(m.merged_profile_id || '>' || m.canonical_profile_id, ' ' ORDER BY m.merge_id)
            FROM (
                SELECT * FROM merges n WHERE n.workspace_id = k.workspace_id AND n.merge_id > k.since ORDER BY n.merge_id LIMIT $6
            ) m
        )
    ), ',' ORDER BY k.position)
    FROM unnest($4::text::text[], $5::bigint[]) WITH ORDINALITY AS k (workspace_id, since, position)
), pg_postmaster_start_time()::text
"""

MAX_MERGES: Final = 1_000
"""Merges that are read of a workspace."""

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
"""Returns the rows of a statement with its arguments."""


async def look_up(fetch: Fetch, identifiers: Sequence[Identifier], workspace_ids: Sequence[str], since: Mapping[str, int]) -> Lookup:
    """See ``GraphStore``."""
    asked = [since.get(workspace_id) for workspace_id in workspace_ids]
    [row] = await fetch(_LOOK_UP, *columns(identifiers), array(workspace_ids), asked, MAX_MERGES + 1)
    owners = row[0].split(",") if identifiers else []
    found = [text.split(":") for text in row[1].split(",")] if workspace_ids else []
    return Lookup(
        {identifier: owner for identifier, owner in zip(identifiers, owners, strict=True) if owner},
        {workspace_id: Standing(*map(int, of[:3])) for workspace_id, of in zip(workspace_ids, found, strict=True)},
        {workspace_id: _merges(int(of[3]), of[4:]) for workspace_id, of in zip(workspace_ids, found, strict=True)},
        row[2],
    )


def _merges(last: int, listed: Sequence[str]) -> Merges:
    pairs = listed[0].split(" ") if listed else []
    if len(pairs) > MAX_MERGES:
        return Merges(last, None)
    return Merges(last, dict(_pair(text) for text in pairs))


def _pair(text: str) -> tuple[str, str]:
    merged, _, into = text.partition(">")
    return merged, into
