"""gRPC in: ``cdi.identity.v1.ComputedTraitsService``."""

from __future__ import annotations

from typing import Any

from cdi.identity.v1 import computed_traits_service_pb2 as pb
from cdi.identity.v1 import computed_traits_service_pb2_grpc as pb_grpc
from cdi_identity import computed_documents, convert
from cdi_identity.computing import ComputedTraits
from cdi_runtime.rpc import Registration

FULL_NAME = pb.DESCRIPTOR.services_by_name["ComputedTraitsService"].full_name


class ComputedTraitsServicer(pb_grpc.ComputedTraitsServiceServicer):
    """The methods; faults are rendered by the interceptor."""

    def __init__(self, computed: ComputedTraits) -> None:
        self._computed = computed

    async def ApplyComputedTrait(self, request: pb.ApplyComputedTraitRequest, context: Any) -> pb.ApplyComputedTraitResponse:
        """Makes a definition be as given."""
        trait, changed = await self._computed.apply(computed_documents.computed_trait(request.trait))
        return pb.ApplyComputedTraitResponse(trait=computed_documents.message(trait), changed=changed)

    async def DeleteComputedTrait(self, request: pb.DeleteComputedTraitRequest, context: Any) -> pb.DeleteComputedTraitResponse:
        """Removes one."""
        await self._computed.delete(convert.workspace(request.workspace_id), request.name.replace("\0", ""))
        return pb.DeleteComputedTraitResponse()

    async def ListComputedTraits(self, request: pb.ListComputedTraitsRequest, context: Any) -> pb.ListComputedTraitsResponse:
        """All of a workspace."""
        listed = await self._computed.listed(convert.workspace(request.workspace_id))
        return pb.ListComputedTraitsResponse(
            traits=[
                pb.ComputedTraitState(
                    trait=computed_documents.message(item.definition.trait), filled=item.filled, fill_error=item.fill_error
                )
                for item in listed
            ]
        )

    async def GetComputedValues(self, request: pb.GetComputedValuesRequest, context: Any) -> pb.GetComputedValuesResponse:
        """The values of a person."""
        workspace_id, profile_id = convert.workspace(request.workspace_id), convert.profile_id(request.profile_id)
        response = pb.GetComputedValuesResponse()
        for item in await self._computed.values(workspace_id, profile_id):
            shown = response.values.add(name=item.name, value=item.value.encode())
            shown.update_time.FromMicroseconds(item.update_us)
        return response


def registration(computed: ComputedTraits) -> Registration:
    """The service, ready to be served."""
    return Registration(pb_grpc.add_ComputedTraitsServiceServicer_to_server, ComputedTraitsServicer(computed), FULL_NAME)
