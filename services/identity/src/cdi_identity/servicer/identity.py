"""gRPC in: ``cdi.identity.v1.IdentityService``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from cdi.error.v1 import error_pb2
from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1 import identity_service_pb2_grpc as pb_grpc
from cdi_identity import convert, convert_profiles, rule_documents
from cdi_identity.application import Identities
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.operating import Operations
from cdi_identity.reading import Profiles
from cdi_identity.ruling import Ruling
from cdi_kernel.faults import InvalidArgument, NotFound
from cdi_runtime.rpc import Registration
from cdi_runtime.telemetry import event_span

FULL_NAME = pb.DESCRIPTOR.services_by_name["IdentityService"].full_name


class IdentityServicer(pb_grpc.IdentityServiceServicer):
    """The methods; faults are rendered by the interceptor."""

    def __init__(self, identities: Identities, profiles: Profiles, ruling: Ruling, operations: Operations) -> None:
        self._identities = identities
        self._profiles = profiles
        self._ruling = ruling
        self._operations = operations

    async def ResolveIdentities(self, request: pb.ResolveIdentitiesRequest, context: Any) -> pb.ResolveIdentitiesResponse:
        """Resolves a batch."""
        started = time.time_ns()
        inputs = request.inputs
        tombstones = request.tombstone_generation if request.HasField("tombstone_generation") else None
        resolutions = await self._identities.resolve(convert.Inputs(inputs, tombstones))
        _trace(inputs, started)
        return convert.response(resolutions)

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        """One profile."""
        workspace_id = convert.workspace(request.workspace_id)
        key = convert_profiles.key(request, workspace_id) if request.WhichOneof("key") else None
        return pb.GetProfileResponse(profile=convert.profile(await self._profiles.one(workspace_id, key)))

    async def ApplyIdentityRules(self, request: pb.ApplyIdentityRulesRequest, context: Any) -> pb.ApplyIdentityRulesResponse:
        """Makes the rules be as given."""
        workspace_id = request.rules.workspace_id
        rules, changed = await self._ruling.apply(workspace_id, rule_documents.rules(request.rules))
        return pb.ApplyIdentityRulesResponse(rules=rule_documents.message(workspace_id, rules), changed=changed)

    async def GetIdentityRules(self, request: pb.GetIdentityRulesRequest, context: Any) -> pb.GetIdentityRulesResponse:
        """The rules."""
        workspace_id = convert.workspace(request.workspace_id)
        return pb.GetIdentityRulesResponse(rules=rule_documents.message(workspace_id, await self._ruling.read(workspace_id)))

    async def MergeProfiles(self, request: pb.MergeProfilesRequest, context: Any) -> pb.MergeProfilesResponse:
        """Makes two profiles one."""
        ids = _profile_id(request.profile_id), _profile_id(request.other_profile_id)
        merged = await self._operations.merge(convert.request(request), *ids)
        return pb.MergeProfilesResponse(profile=convert.profile(merged))

    async def SplitProfile(self, request: pb.SplitProfileRequest, context: Any) -> pb.SplitProfileResponse:
        """Separates a profile."""
        asked, profile_id = convert.request(request), _profile_id(request.profile_id)
        part: str | list[Identifier] = convert.identifiers(asked.workspace_id, request.identifiers.identifiers)
        if request.WhichOneof("part") == "merged_profile_id":
            part = convert.profile_id(request.merged_profile_id) or ""
        remaining, separated = await self._operations.split(asked, profile_id, part)
        return pb.SplitProfileResponse(remaining=convert.profile(remaining), separated=convert.profile(separated))

    async def ExplainProfile(self, request: pb.ExplainProfileRequest, context: Any) -> pb.ExplainProfileResponse:
        """How a profile came to be."""
        workspace_id, size = convert.workspace(request.workspace_id), convert.page_size(request.page_size)
        profile_id, before = _profile_id(request.profile_id), convert.before(request.page_token)
        profile, decisions = await self._operations.explain_profile(workspace_id, profile_id, before, size)
        return pb.ExplainProfileResponse(
            profile=convert.profile(profile),
            decisions=[convert.decision(decision) for _, decision in decisions],
            next_page_token=str(decisions[-1][0]) if len(decisions) == size else "",
        )

    async def ExplainResolution(self, request: pb.ExplainResolutionRequest, context: Any) -> pb.ExplainResolutionResponse:
        """Why an event belongs to whom it belongs."""
        workspace_id = convert.workspace(request.workspace_id)
        if request.WhichOneof("subject") == "identifiers":
            decided = await self._operations.explain_identifiers(workspace_id, request.identifiers.identifiers)
        elif request.message_id:
            decided = await self._operations.explain_event(workspace_id, request.message_id)
        else:
            raise InvalidArgument("say which event, or which identifiers", field_violations=[("subject", "not set")])
        return pb.ExplainResolutionResponse(decision=convert.decision(decided))


def registration(identities: Identities, profiles: Profiles, ruling: Ruling, operations: Operations) -> Registration:
    """The service, ready to be served."""
    servicer = IdentityServicer(identities, profiles, ruling, operations)
    return Registration(pb_grpc.add_IdentityServiceServicer_to_server, servicer, FULL_NAME)


def _profile_id(text: str) -> str:
    """A profile id that may exist.

    Raises:
        NotFound: it is no UUID, so no profile has it.
    """
    found = convert.profile_id(text)
    if found is None:
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": "profile_id"})
    return found


def _trace(inputs: Iterable[pb.IdentityInput], started_ns: int) -> None:
    """One span per sampled event: it took as long as its batch."""
    for item in [item for item in inputs if item.traceparent]:
        attributes = {"cdi.message_id": item.message_id}
        event_span("ResolveIdentities", item.traceparent, attributes=attributes, start_time_ns=started_ns).end()
