"""gRPC in: ``cdi.identity.v1.IdentityService``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from cdi.error.v1 import error_pb2
from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1 import identity_service_pb2_grpc as pb_grpc
from cdi_identity import convert
from cdi_identity.application import Identities
from cdi_kernel.faults import NotFound
from cdi_runtime.rpc import Registration
from cdi_runtime.telemetry import event_span

FULL_NAME = pb.DESCRIPTOR.services_by_name["IdentityService"].full_name


class IdentityServicer(pb_grpc.IdentityServiceServicer):
    """The methods; faults are rendered by the interceptor."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    async def ResolveIdentities(self, request: pb.ResolveIdentitiesRequest, context: Any) -> pb.ResolveIdentitiesResponse:
        """Resolves a batch."""
        started = time.time_ns()
        inputs = request.inputs
        resolutions = await self._identities.resolve(convert.observations(inputs))
        _trace(inputs, started)
        return convert.response(resolutions)

    async def GetIdentityRules(self, request: pb.GetIdentityRulesRequest, context: Any) -> pb.GetIdentityRulesResponse:
        """The defaults."""
        return pb.GetIdentityRulesResponse()

    async def GetProfile(self, request: pb.GetProfileRequest, context: Any) -> pb.GetProfileResponse:
        """One profile."""
        if request.WhichOneof("key") == "identifier":
            found = await self._identities.profile_by_identifier(request.workspace_id, request.identifier)
        elif (profile_id := convert.profile_id(request.profile_id)) is not None:
            found = await self._identities.profile_by_id(request.workspace_id, profile_id)
        else:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": "profile_id"})
        return pb.GetProfileResponse(profile=convert.profile(found))


def registration(identities: Identities) -> Registration:
    """The service, ready to be served."""
    return Registration(pb_grpc.add_IdentityServiceServicer_to_server, IdentityServicer(identities), FULL_NAME)


def _trace(inputs: Iterable[pb.IdentityInput], started_ns: int) -> None:
    """One span per sampled event: it took as long as its batch."""
    for item in [item for item in inputs if item.traceparent]:
        attributes = {"cdi.message_id": item.message_id}
        event_span("ResolveIdentities", item.traceparent, attributes=attributes, start_time_ns=started_ns).end()
