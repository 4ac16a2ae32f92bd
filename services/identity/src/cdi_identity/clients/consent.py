"""Consent over gRPC: which people granted a purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import grpc

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.error.v1 import error_pb2
from cdi_identity.ports import Asked
from cdi_kernel.faults import Internal
from cdi_runtime.rpc import call

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub

DEADLINE_SECONDS: Final = 10.0
"""Until a call is given up."""


class ConsentClient:
    """Asks the consent service; see ``PurposeChecker``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: ConsentServiceAsyncStub = ConsentServiceStub(channel)

    async def granted(self, workspace_id: str, purpose: str, people: Sequence[Asked]) -> list[bool]:
        """See ``PurposeChecker``."""
        sets = [pb.SubjectSet(subjects=[pb.Subject(type=kind, id=value) for kind, value in person]) for person in people]
        request = pb.CheckPurposeRequest(workspace_id=workspace_id, purpose=purpose, people=sets)
        answer = await call(self._stub.CheckPurpose, request, timeout=DEADLINE_SECONDS, peer="consent")
        if len(answer.granted) != len(people):
            raise Internal(error_pb2.ERROR_REASON_INTERNAL, f"consent gave {len(answer.granted)} answers for {len(people)} people")
        return list(answer.granted)
