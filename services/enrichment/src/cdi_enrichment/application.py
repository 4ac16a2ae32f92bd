"""Use cases beside the stream: tracking plans, and questions about what the pipeline did."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cdi.enrichment.v1 import tracking_plan_pb2
from cdi.error.v1 import error_pb2
from cdi.event.v1 import outcome_pb2
from cdi.identity.v1 import rules_pb2
from cdi_enrichment.domain.claims import claim_key
from cdi_enrichment.domain.places import Places, places_of
from cdi_enrichment.domain.tracking_plan import CompiledPlan, PlanSnapshot, compile_plan
from cdi_enrichment.ports import Claims, Plans, Progress, RulesReader, SeenEvent
from cdi_kernel.faults import Fault, InvalidArgument, NotFound, Transient
from cdi_runtime.telemetry import logger

RELOAD_SECONDS: Final = 1.0
"""How often the store is asked whether plans changed; a change is in force everywhere within 2 s."""

RULES_SECONDS: Final = 3.0
"""How often identity is asked whether its rules changed."""

MAX_NAME_LENGTH: Final = 200

_log = logger(__name__)


class TrackingPlans:
    """Tracking plans: stored with all versions, compiled into the snapshot that batches are checked against."""

    def __init__(self, store: Plans) -> None:
        self._store = store
        self._compiled: dict[tuple[str, str], CompiledPlan] = {}
        self._snapshot = PlanSnapshot()

    @property
    def snapshot(self) -> PlanSnapshot:
        """All plans in force. A batch takes it once."""
        return self._snapshot

    async def apply(self, plan: tracking_plan_pb2.TrackingPlan) -> tuple[tracking_plan_pb2.TrackingPlan, bool]:
        """Makes a plan be as given; the plan with its version, and whether anything changed.

        Raises:
            InvalidArgument: a field breaks a rule or a schema does not compile.
            AlreadyExists: another plan covers one of its sources.
        """
        _require_shape(plan)
        compile_plan(plan)
        applied, changed = await self._store.apply(plan)
        if changed:
            _log.info("plans.applied", plan=applied.name, version=applied.version)
            await self.reload()
        return applied, changed

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[tracking_plan_pb2.TrackingPlan]:
        """At most ``limit`` plans of a workspace whose names come after ``after``, by name."""
        return await self._store.page(workspace_id, after, limit)

    async def reload(self) -> None:
        """Reads the plans in force and compiles those that are new."""
        revision, plans = await self._store.all_in_force()
        compiled: dict[tuple[str, str], CompiledPlan] = {}
        for plan in plans:
            name = (plan.workspace_id, plan.name)
            known = self._compiled.get(name)
            compiled[name] = known if known is not None and known.plan.version == plan.version else compile_plan(plan)
        self._compiled = compiled
        by_source = {(c.plan.workspace_id, source): c for c in compiled.values() for source in c.plan.source_ids}
        self._snapshot = PlanSnapshot(revision, by_source)

    async def follow(self) -> None:
        """Keeps the snapshot up to date until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                if await self._store.revision() != self._snapshot.revision:
                    await self.reload()
            except Transient as fault:
                # Batches wait for the same database, so none is checked against an old plan for long.
                _log.warning("plans.reload_waits", reason=fault.reason_name)


class IdentifierPlaces:
    """Where the workspaces' identity rules find identifiers: a snapshot that follows identity within seconds.

    A workspace is asked about when its first event comes; until identity has answered, its events wait. Later a change is seen in the
    background, and while identity is away the last answer stays.
    """

    def __init__(self, reader: RulesReader) -> None:
        self._reader = reader
        self._known: dict[str, rules_pb2.IdentityRules] = {}
        self._snapshot: Mapping[str, Places] = {}

    async def of(self, workspace_ids: Collection[str]) -> Mapping[str, Places]:
        """The places of these workspaces, and perhaps of others; those that have none beside the standard ones are missing.

        Raises:
            Transient: identity does not answer about a workspace that was never asked about.
        """
        for workspace_id in workspace_ids:
            if workspace_id not in self._known:
                await self._read(workspace_id)
        return self._snapshot

    async def reload(self) -> None:
        """Asks again about every known workspace."""
        for workspace_id in list(self._known):
            await self._read(workspace_id)

    async def follow(self) -> None:
        """Keeps the snapshot up to date until cancelled."""
        while True:
            await asyncio.sleep(RULES_SECONDS)
            try:
                await self.reload()
            except Fault as fault:
                _log.warning("identity_rules.reload_waits", reason=fault.reason_name)

    async def _read(self, workspace_id: str) -> None:
        rules = await self._reader.rules(workspace_id)
        if self._known.get(workspace_id) == rules:
            return
        self._known[workspace_id] = rules
        places = places_of(rules.identifiers)
        others = {name: known for name, known in self._snapshot.items() if name != workspace_id}
        self._snapshot = others | {workspace_id: places} if places else others


class Questions:
    """What the pipeline made of one event, and of all of them."""

    def __init__(self, claims: Claims, progress: Progress) -> None:
        self._claims = claims
        self._progress = progress

    async def explain(self, workspace_id: str, message_id: str) -> SeenEvent:
        """The first occurrence of an event.

        Raises:
            NotFound: the pipeline has not seen it within the dedupe window.
        """
        seen = await self._claims.find(claim_key(workspace_id, message_id))
        if seen is None:
            raise NotFound(
                error_pb2.ERROR_REASON_NOT_FOUND,
                "no such event within the dedupe window",
                metadata={"resource": "event", "name": message_id},
            )
        return seen

    async def count_outcomes(self) -> list[outcome_pb2.OutcomeCount]:
        """What became of all events since the installation began."""
        return await self._progress.count_outcomes()


def _require_shape(plan: tracking_plan_pb2.TrackingPlan) -> None:
    for field in ("workspace_id", "name"):
        if not 0 < len(getattr(plan, field)) <= MAX_NAME_LENGTH:
            raise _invalid(f"tracking_plan.{field}", f"must have 1 to {MAX_NAME_LENGTH} characters")
    if not plan.source_ids:
        raise _invalid("tracking_plan.source_ids", "must name at least one source")
    if not all(plan.source_ids) or len(set(plan.source_ids)) != len(plan.source_ids):
        raise _invalid("tracking_plan.source_ids", "must name each source once")


def _invalid(field: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {text}", metadata={"field": field}, field_violations=[(field, text)])
