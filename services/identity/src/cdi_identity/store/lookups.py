"""Reading identifiers and the standing of workspaces: one statement, one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import Lookup, Standing
from cdi_identity.store.literals import array, columns
from cdi_runtime.store import raw

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
    SELECT string_agg(coalesce(
        (SELECT w.rules_version || ':' || w.splits FROM workspaces w WHERE w.workspace_id = k.workspace_id), ''
    ), ',' ORDER BY k.position)
    FROM unnest($4::text::text[]) WITH ORDINALITY AS k (workspace_id, position)
)
"""

_AT_FIRST: Final = Standing()


async def look_up(connection: AsyncConnection, identifiers: Sequence[Identifier], workspace_ids: Sequence[str]) -> Lookup:
    """See ``GraphStore``."""
    row = await raw(connection).fetchrow(_LOOK_UP, *columns(identifiers), array(workspace_ids))
    assert row is not None, "a SELECT without FROM has one row"
    owners = [owner or None for owner in row[0].split(",")] if identifiers else []
    standings = [_standing(text) for text in row[1].split(",")] if workspace_ids else []
    return Lookup(dict(zip(identifiers, owners, strict=True)), dict(zip(workspace_ids, standings, strict=True)))


def _standing(text: str) -> Standing:
    if not text:
        return _AT_FIRST
    version, _, splits = text.partition(":")
    return Standing(int(version), int(splits))
