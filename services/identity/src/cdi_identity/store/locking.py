"""The lock of a workspace: whoever changes its graph, or what is computed from it, holds it until the commit (docs/adr/0005)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cdi_identity.store.literals import lock_key
from cdi_runtime.store import raw

_LOCK_SPACE: Final = 0x0CD1
"""First key of the workspace locks. The two-key locks are a space of their own beside the one-key lock of the outbox."""

# A replica whose host vanished must not keep a workspace for long: its transaction ends by itself.
_LOCK: Final = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true), pg_advisory_xact_lock($1, key)
FROM unnest($2::int[]) AS key
"""


async def hold(connection: AsyncConnection, workspace_ids: Iterable[str]) -> None:
    """Takes the locks of workspaces for the rest of the transaction, in ascending order as everybody does: no deadlock."""
    keys = sorted({lock_key(workspace_id) for workspace_id in workspace_ids})
    await raw(connection).execute(_LOCK, _LOCK_SPACE, keys)
