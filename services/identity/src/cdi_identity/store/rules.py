"""Identity rules in Postgres: every version that was ever applied, as the protocol's message."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.identity.v1.rules_pb2 import IdentityRules
from cdi_identity import rule_documents
from cdi_identity.domain.rules import DEFAULT_RULES, Rules
from cdi_identity.store.literals import moment
from cdi_runtime.store import raw

_READ: Final = "SELECT document FROM rules WHERE workspace_id = $1 ORDER BY version DESC LIMIT 1"
_INSERT: Final = "INSERT INTO rules (workspace_id, version, document, apply_time) VALUES ($1, $2, $3, $4)"
_STAND: Final = """
INSERT INTO workspaces (workspace_id, rules_version) VALUES ($1, $2)
ON CONFLICT (workspace_id) DO UPDATE SET rules_version = excluded.rules_version
"""


async def read_rules(connection: AsyncConnection, workspace_id: str) -> Rules:
    """The newest rules of a workspace; the defaults if none were applied."""
    document = await raw(connection).fetchval(_READ, workspace_id)
    return DEFAULT_RULES if document is None else rule_documents.rules(IdentityRules.FromString(document))


async def write_rules(connection: AsyncConnection, workspace_id: str, rules: Rules, now_us: int) -> None:
    """Stores a version; the caller holds the workspace."""
    document = rule_documents.message(workspace_id, rules).SerializeToString(deterministic=True)
    await raw(connection).execute(_INSERT, workspace_id, rules.version, document, moment(now_us))
    await raw(connection).execute(_STAND, workspace_id, rules.version)
