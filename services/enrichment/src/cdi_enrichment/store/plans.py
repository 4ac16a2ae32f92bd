"""Tracking plans in Postgres: every version is kept, the newest one of a name is in force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cdi.enrichment.v1 import tracking_plan_pb2
from cdi.error.v1 import error_pb2
from cdi_kernel.faults import AlreadyExists
from cdi_runtime.store import Database

_IN_FORCE = "SELECT DISTINCT ON (workspace_id, name) workspace_id, name, document FROM tracking_plans"
_NEWEST_FIRST = "ORDER BY workspace_id, name, version DESC"


class PlanStore:
    """Tracking plans by workspace and name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, plan: tracking_plan_pb2.TrackingPlan) -> tuple[tracking_plan_pb2.TrackingPlan, bool]:
        """Makes the plan be as given.

        Args:
            plan: its version is ignored.

        Returns:
            The plan with its version, and whether anything changed.

        Raises:
            AlreadyExists: another plan of the workspace covers one of its sources.
        """
        async with self._database.transaction() as connection:
            # The only row is locked, so applications come one after the other.
            await connection.execute(text("SELECT revision FROM plan_revision FOR UPDATE"))
            known = {stored.name: stored for stored in await _in_force(connection, plan.workspace_id)}
            _require_free_sources(plan, known.values())
            current = known.get(plan.name)
            wanted = tracking_plan_pb2.TrackingPlan()
            wanted.CopyFrom(plan)
            wanted.version = current.version if current is not None else 0
            if current is not None and wanted == current:
                return current, False
            wanted.version += 1
            await connection.execute(
                text("INSERT INTO tracking_plans (workspace_id, name, version, document) VALUES (:workspace, :name, :version, :document)"),
                {
                    "workspace": wanted.workspace_id,
                    "name": wanted.name,
                    "version": wanted.version,
                    "document": wanted.SerializeToString(deterministic=True),
                },
            )
            await connection.execute(text("UPDATE plan_revision SET revision = revision + 1"))
            return wanted, True

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[tracking_plan_pb2.TrackingPlan]:
        """At most ``limit`` plans of a workspace in force whose names come after ``after``, by name."""
        statement = text(f"{_IN_FORCE} WHERE workspace_id = :workspace AND name > :after {_NEWEST_FIRST} LIMIT :limit")
        async with self._database.transaction() as connection:
            rows = await connection.execute(statement, {"workspace": workspace_id, "after": after, "limit": limit})
            return [tracking_plan_pb2.TrackingPlan.FromString(row.document) for row in rows]

    async def revision(self) -> int:
        """Rises with every change of any plan."""
        async with self._database.transaction() as connection:
            return int((await connection.execute(text("SELECT revision FROM plan_revision"))).scalar_one())

    async def all_in_force(self) -> tuple[int, Sequence[tracking_plan_pb2.TrackingPlan]]:
        """All plans in force, and a revision that they are at least as new as."""
        async with self._database.transaction() as connection:
            revision = int((await connection.execute(text("SELECT revision FROM plan_revision"))).scalar_one())
            rows = await connection.execute(text(f"{_IN_FORCE} {_NEWEST_FIRST}"))
            return revision, [tracking_plan_pb2.TrackingPlan.FromString(row.document) for row in rows]


async def _in_force(connection: AsyncConnection, workspace_id: str) -> list[tracking_plan_pb2.TrackingPlan]:
    rows = await connection.execute(text(f"{_IN_FORCE} WHERE workspace_id = :workspace {_NEWEST_FIRST}"), {"workspace": workspace_id})
    return [tracking_plan_pb2.TrackingPlan.FromString(row.document) for row in rows]


def _require_free_sources(plan: tracking_plan_pb2.TrackingPlan, known: Iterable[tracking_plan_pb2.TrackingPlan]) -> None:
    for other in known:
        shared = set(plan.source_ids).intersection(other.source_ids)
        if other.name != plan.name and shared:
            raise AlreadyExists(
                error_pb2.ERROR_REASON_ALREADY_EXISTS,
                f"source {min(shared)} is covered by tracking plan {other.name}",
                metadata={"resource": "tracking_plan", "name": other.name},
            )
