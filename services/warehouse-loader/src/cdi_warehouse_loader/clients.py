"""The consent service, as the loader asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import purpose_pb2
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi_kernel.faults import Fault, Unavailable
from cdi_runtime.rpc import call
from cdi_warehouse_loader.domain.withholding import NeedsOf, needs_of

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub

DEADLINE_SECONDS: Final = 5.0
PAGE: Final = 1_000
PEER: Final = "consent"


class ConsentPurposes:
    """``PurposeReader`` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: ConsentServiceAsyncStub = ConsentServiceStub(channel)

    async def needs(self, workspace_id: str) -> NeedsOf:
        """See ``PurposeReader``."""
        purposes: list[purpose_pb2.Purpose] = []
        token = ""
        while True:
            request = pb.ListPurposesRequest(workspace_id=workspace_id, page_size=PAGE, page_token=token)
            try:
                page = await call(self._stub.ListPurposes, request, timeout=DEADLINE_SECONDS, peer=PEER)
            except Fault as fault:
                # Whatever is wrong there is wrong with no event: all of them wait.
                raise Unavailable(PEER, f"consent does not tell its purposes: {fault.reason_name}") from fault
            purposes += page.purposes
            token = page.next_page_token
            if not token:
                return needs_of((each.name, rule.warehouse, rule.rows, rule.columns) for each in purposes for rule in each.warehouses)


class NoPurposes:
    """``PurposeReader`` of a loader without a consent service: nothing is said of warehouses."""

    async def needs(self, workspace_id: str) -> NeedsOf:
        """See ``PurposeReader``."""
        return {}
