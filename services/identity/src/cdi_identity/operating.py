"""The use cases of operators: merge, split, explain.

Merging and splitting hold the workspace's lock like every change of the graph, and are recorded by the id of the request, under which they
are found when the request comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_identity.application import loaded
from cdi_identity.domain.decisions import MERGE_REQUEST, SPLIT_REQUEST, Cause, Decision, Kind
from cdi_identity.domain.graph import Graph
from cdi_identity.domain.history import PROFILE_ID
from cdi_identity.domain.identifiers import Identifier, Named, usable
from cdi_identity.domain.resolution import Observation, resolve
from cdi_identity.domain.separation import NotPossible, take, undo
from cdi_identity.ports import GraphStore, GraphWriter, StoredProfile
from cdi_identity.reading import Profiles
from cdi_kernel.faults import FailedPrecondition, NotFound
from cdi_kernel.ids import uuid7, uuid7_texts


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what.

    Attributes:
        workspace_id: the workspace.
        request_id: the same one again does nothing.
        reason: why, for the record.
    """

    workspace_id: str
    request_id: str
    reason: str


_UNRECORDED: Final = "no decision was recorded for this event: it changed nothing and had nothing left out, or it never came"


class Operations:
    """What operators do with profiles.

    Args:
        store: the graph.
        profiles: what is answered.
        now_us: the clock, microseconds since 1970.
        changed: called after a commit that put something into the outbox.
    """

    def __init__(self, store: GraphStore, profiles: Profiles, now_us: Callable[[], int], changed: Callable[[], None]) -> None:
        self._store = store
        self._profiles = profiles
        self._now_us = now_us
        self._changed = changed

    async def merge(self, request: Request, profile_id: str, other_id: str) -> StoredProfile:
        """Makes two profiles one, whatever the limits say; the older one goes on. Separations between them end.

        Raises:
            NotFound: one of them is not there.
        """
        workspace_id = request.workspace_id
        async with self._store.changing([workspace_id]) as writer:
            done = await writer.decision_of_request(workspace_id, request.request_id, MERGE_REQUEST)
            if done is None:
                result = await self._merge(writer, request, profile_id, other_id)
            else:
                result = done.profile_id
        self._changed()
        return await self._profiles.one(workspace_id, (PROFILE_ID, result))

    async def split(self, request: Request, profile_id: str, part: str | Sequence[Identifier]) -> tuple[StoredProfile, StoredProfile]:
        """Separates a profile: undoes the merge of a profile id, or takes identifiers out. Returns what is left, and what left it.

        Raises:
            NotFound: the profile is not there.
            FailedPrecondition: nothing would be left, or nothing to separate.
        """
        workspace_id = request.workspace_id
        async with self._store.changing([workspace_id]) as writer:
            done = await writer.decision_of_request(workspace_id, request.request_id, SPLIT_REQUEST)
            if done is None:
                remaining, separated = await self._split(writer, request, profile_id, part)
            else:
                remaining, separated = done.profile_id, done.other_profile_ids[0]
        self._changed()
        left = await self._profiles.one(workspace_id, (PROFILE_ID, remaining))
        return left, await self._profiles.one(workspace_id, (PROFILE_ID, separated))

    async def explain_profile(
        self, workspace_id: str, profile_id: str, before_id: int | None, limit: int
    ) -> tuple[StoredProfile, Sequence[tuple[int, Decision]]]:
        """A profile and how it came to be, newest first; each decision with its number, all below ``before_id``.

        Raises:
            NotFound: there is none.
        """
        profile = await self._profiles.one(workspace_id, (PROFILE_ID, profile_id))
        return profile, await self._store.decisions(profile, before_id, limit)

    async def explain_event(self, workspace_id: str, message_id: str) -> Decision:
        """What was decided for an event.

        Raises:
            NotFound: nothing was recorded: it changed nothing, or never came.
        """
        decision = await self._store.decision_of_message(workspace_id, message_id)
        if decision is None:
            metadata = {"resource": "decision", "name": "message_id"}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, _UNRECORDED, metadata=metadata)
        return decision

    async def explain_identifiers(self, workspace_id: str, brought: Sequence[Named]) -> Decision:
        """What would be decided now for an event with these identifiers. A profile that would be made has no id."""
        now_us = self._now_us()
        async with self._store.changing([workspace_id]) as writer:
            rules = {workspace_id: await writer.rules(workspace_id)}
            identifiers = usable(workspace_id, brought, rules[workspace_id])
            cause = Cause("", "")
            if not identifiers:
                return Decision(Kind.UNLINKED, "", cause, rules[workspace_id].version, decide_us=now_us)
            lookup = await writer.look_up(list(dict.fromkeys(identifiers)), [workspace_id])
            graph = await loaded(writer, lookup, rules, now_us)
        [resolution] = resolve(graph, [Observation(workspace_id, "", identifiers)], rules)
        decisions = graph.changes().decisions
        decision = decisions[0] if decisions else Decision(Kind.MATCHED, resolution.profile_id, cause, rules[workspace_id].version)
        decision.decide_us = now_us
        if decision.kind is Kind.CREATED:
            decision.profile_id = ""
        return decision

    async def _merge(self, writer: GraphWriter, request: Request, profile_id: str, other_id: str) -> str:
        ids = [await _canonical(writer, request.workspace_id, asked) for asked in (profile_id, other_id)]
        if ids[0] == ids[1]:
            return ids[0]
        now_us = self._now_us()
        rules = await writer.rules(request.workspace_id)
        profiles = await writer.load(ids, {})
        older, younger = sorted(profiles.values(), key=lambda profile: profile.ordinal)
        graph = Graph({}, uuid7_texts())
        cause = Cause(request.request_id, MERGE_REQUEST)
        graph.merge(older, younger, cause)
        graph.record(Decision(Kind.MERGED, older.profile_id, cause, rules.version, [younger.profile_id], reason=request.reason))
        await writer.save(graph.changes(), now_us)
        return older.profile_id

    async def _split(self, writer: GraphWriter, request: Request, profile_id: str, part: str | Sequence[Identifier]) -> tuple[str, str]:
        canonical = await _canonical(writer, request.workspace_id, profile_id)
        whole = await writer.whole(request.workspace_id, canonical)
        try:
            separation = undo(whole, part) if isinstance(part, str) else take(whole, part, str(uuid7()))
        except NotPossible as error:
            raise FailedPrecondition(
                error_pb2.ERROR_REASON_INVALID_ARGUMENT, str(error), metadata={"resource": "profile", "name": "part"}
            ) from error
        rules = await writer.rules(request.workspace_id)
        decision = Decision(
            Kind.SPLIT,
            separation.remaining_id,
            Cause(request.request_id, SPLIT_REQUEST),
            rules.version,
            [separation.separated_id],
            separation.identifiers,
            reason=request.reason,
        )
        await writer.separate(separation, decision, self._now_us())
        return separation.remaining_id, separation.separated_id


async def _canonical(writer: GraphWriter, workspace_id: str, profile_id: str) -> str:
    canonical = await writer.canonical_id(workspace_id, profile_id)
    if canonical is None:
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": "profile_id"})
    return canonical
