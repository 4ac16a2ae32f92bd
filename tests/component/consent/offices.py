"""What the tests of privacy requests work with: an officer's calls, and small services that are told and report over the real protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import grpc

from cdi.consent.v1 import consent_service_pb2, privacy_pb2
from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceStub
from cdi.identity.v1 import identity_service_pb2 as identity_pb
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import Identifier
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Done, Message, Outcome, ReaderSpec, reading
from cdi_runtime.rpc import channel
from cdi_runtime.service import ServiceContext
from cdi_testing.builders import message_id

TOKEN = "officer-token"
SETTINGS = {
    "CDI_PRIVACY_TOKEN_HASHES": sha256(TOKEN.encode()).hexdigest(),
    "CDI_PRIVACY_SECOND_LOOK_SECONDS": "0.2",
    "CDI_TRACE_SAMPLE_RATIO": "0",
}
OTHERS = ("collector", "enrichment", "identity", "router", "warehouse-loader")
Id = tuple[str, str]

Does = Callable[[privacy_pb2.PrivacyOrder], Sequence[privacy_pb2.PrivacyStep] | None]
"""What a service makes of an order; ``None``: it does not answer."""


def step(store: str, status: int = privacy_pb2.PRIVACY_STATUS_FINISHED, count: int = 0, detail: str = "") -> privacy_pb2.PrivacyStep:
    return privacy_pb2.PrivacyStep(store=store, status=privacy_pb2.PrivacyStatus.ValueType(status), count=count, detail=detail)


def three_rows_once(order: privacy_pb2.PrivacyOrder) -> Sequence[privacy_pb2.PrivacyStep]:
    """Finds three rows the first time."""
    return [step("rows", count=3 if order.attempt == 1 else 0)]


@dataclass
class Office:
    """A privacy officer at a consent service."""

    privacy: PrivacyServiceStub
    consent: ConsentServiceStub
    workspace: str = field(default_factory=lambda: f"ws-{message_id()}")

    async def ask(self, verb: int, *people: Sequence[Id], **fields: str) -> list[str]:
        asked = [pb.PrivacyPerson(subjects=[consent_service_pb2.Subject(type=kind, id=one) for kind, one in ids]) for ids in people]
        request = pb.CreatePrivacyRequestsRequest(
            workspace_id=self.workspace, verb=privacy_pb2.PrivacyVerb.ValueType(verb), people=asked, **fields
        )
        return [result.request_id for result in (await self.privacy.CreatePrivacyRequests(request)).results]

    async def get(self, request_id: str) -> privacy_pb2.PrivacyRequest:
        return (
            await self.privacy.GetPrivacyRequest(pb.GetPrivacyRequestRequest(workspace_id=self.workspace, request_id=request_id))
        ).request

    async def status(self, request_id: str) -> str:
        return privacy_pb2.PrivacyStatus.Name((await self.get(request_id)).status).removeprefix("PRIVACY_STATUS_")

    async def is_finished(self, request_id: str) -> bool:
        return await self.status(request_id) == "FINISHED"

    async def suppressed(self, *ids: Id, received_us: int = 0) -> list[bool]:
        inputs = [
            consent_service_pb2.ConsentInput(workspace_id=self.workspace, message_id=message_id(), **{kind: one}) for kind, one in ids
        ]
        for given in inputs if received_us else ():
            given.received_time.FromMicroseconds(received_us)
        answer = await self.consent.EvaluateConsent(consent_service_pb2.EvaluateConsentRequest(inputs=inputs))
        return [result.suppressed for result in answer.results]

    async def tombstones(self) -> int:
        """The generation by which an event is judged now."""
        named = consent_service_pb2.ConsentInput(workspace_id=self.workspace, message_id=message_id(), user_id="anybody")
        nobody = consent_service_pb2.ConsentInput(workspace_id=self.workspace, message_id=message_id())
        answer = await self.consent.EvaluateConsent(consent_service_pb2.EvaluateConsentRequest(inputs=[nobody]))
        assert not answer.HasField("tombstone_generation")
        answer = await self.consent.EvaluateConsent(consent_service_pb2.EvaluateConsentRequest(inputs=[nobody, named]))
        assert answer.HasField("tombstone_generation")
        return answer.tombstone_generation

    async def is_there(self) -> bool:
        """Whether it answers, as after a start."""
        try:
            await self.privacy.ListPrivacyRequests(pb.ListPrivacyRequestsRequest(workspace_id=self.workspace))
        except grpc.aio.AioRpcError:
            return False
        return True

    async def download(self, request_id: str) -> bytes:
        request = pb.DownloadArchiveRequest(workspace_id=self.workspace, request_id=request_id)
        return b"".join([answer.piece async for answer in self.privacy.DownloadArchive(request)])


@asynccontextmanager
async def office(target: str, token: str = TOKEN) -> AsyncIterator[Office]:
    async with channel(target, token=token) as made:
        yield Office(PrivacyServiceStub(made), ConsentServiceStub(made))


@dataclass
class Services:
    """The other services, as small as can be: each is told over the stream and reports over gRPC.

    Attributes:
        target: consent's address.
        does: what each makes of an order, by workspace and service; those that are not named find three rows once.
        holdings: rows that are sent for access, by workspace and service.
        calm: workspaces about which nothing is reported twice.
        orders: what was told, in order.
    """

    target: str
    does: dict[str, dict[str, Does]] = field(default_factory=dict)
    holdings: dict[str, Mapping[str, Sequence[bytes]]] = field(default_factory=dict)
    calm: set[str] = field(default_factory=set)
    orders: list[privacy_pb2.PrivacyOrder] = field(default_factory=list)

    def of(self, workspace: str) -> list[privacy_pb2.PrivacyOrder]:
        """What was told about a workspace."""
        return [order for order in self.orders if order.workspace_id == workspace]

    async def handle(self, messages: Sequence[Message[privacy_pb2.PrivacyOrder]]) -> Sequence[Outcome]:
        async with channel(self.target) as made:
            stub = PrivacyServiceStub(made)
            self.orders += [message.body for message in messages]
            await asyncio.gather(*[self._do(stub, one, message.body) for message in messages for one in message.body.services])
        return [Done()] * len(messages)

    async def _do(self, stub: PrivacyServiceStub, service: str, order: privacy_pb2.PrivacyOrder) -> None:
        steps = self.does.get(order.workspace_id, {}).get(service, three_rows_once)(order)
        if steps is None:
            return
        while True:
            try:
                if order.verb == privacy_pb2.PRIVACY_VERB_ACCESS:
                    await stub.SendHoldings(self._pieces(service, order))
                request = pb.ReportStepsRequest(request_id=order.request_id, service=service, attempt=order.attempt, steps=steps)
                await stub.ReportSteps(request)
                # Twice, because everything may come twice.
                if order.workspace_id not in self.calm:
                    await stub.ReportSteps(request)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)

    async def _pieces(self, service: str, order: privacy_pb2.PrivacyOrder) -> AsyncIterator[pb.SendHoldingsRequest]:
        yield pb.SendHoldingsRequest(request_id=order.request_id, service=service)
        for row in self.holdings.get(order.workspace_id, {}).get(service, ()):
            yield pb.SendHoldingsRequest(holding="rows", rows=[row])


@asynccontextmanager
async def running(services: Services, bus: Bus) -> AsyncIterator[Services]:
    spec = ReaderSpec("test", "test", StreamName.PRIVACY, privacy_pb2.PrivacyOrder.FromString, None)
    context = ServiceContext("test")
    async with reading(bus, spec, services.handle, context):
        yield services


class Graph:
    """Identity, which is shown events."""

    def __init__(self, stub: IdentityServiceStub) -> None:
        self._stub = stub

    async def seen(self, workspace: str, *ids: Id) -> str:
        identifiers = [Identifier(type=kind, value=value) for kind, value in ids]
        given = identity_pb.IdentityInput(workspace_id=workspace, message_id=message_id(), identifiers=identifiers, event_type="track")
        answer = await self._stub.ResolveIdentities(identity_pb.ResolveIdentitiesRequest(inputs=[given]))
        return answer.identities[0].profile_id
