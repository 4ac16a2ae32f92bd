"""Batches over gRPC: split where they are too large, one result per input, in order."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from cdi.consent.v1.consent_service_pb2 import ConsentInput, EvaluateConsentRequest, EvaluateConsentResponse, EvaluatedConsent
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceServicer, add_ConsentServiceServicer_to_server
from cdi.identity.v1.identity_service_pb2 import (
    GetIdentityRulesRequest,
    GetIdentityRulesResponse,
    IdentityInput,
    ResolvedIdentity,
    ResolveIdentitiesRequest,
    ResolveIdentitiesResponse,
)
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from cdi.identity.v1.rules_pb2 import IdentifierRule, IdentityRules
from cdi_enrichment import clients
from cdi_enrichment.application import IdentifierPlaces
from cdi_enrichment.clients import ConsentClient, IdentityClient
from cdi_kernel.faults import Internal, Unavailable
from cdi_runtime import rpc
from cdi_testing.builders import track


class Consent(ConsentServiceServicer):
    """Grants to each event its own id."""

    async def EvaluateConsent(  # type: ignore[override]
        self, request: EvaluateConsentRequest, context: object
    ) -> EvaluateConsentResponse:
        return EvaluateConsentResponse(results=[EvaluatedConsent(granted_purposes=[given.message_id]) for given in request.inputs])


class Identity(IdentityServiceServicer):
    """Names each profile after its event, and forgets events called ``lost``."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.rules: dict[str, IdentityRules] = {}
        self.away = False

    async def ResolveIdentities(  # type: ignore[override]
        self, request: ResolveIdentitiesRequest, context: object
    ) -> ResolveIdentitiesResponse:
        self.batches.append(len(request.inputs))
        known = [given.message_id for given in request.inputs if given.message_id != "lost"]
        return ResolveIdentitiesResponse(identities=[ResolvedIdentity(profile_id=name) for name in known])

    async def GetIdentityRules(  # type: ignore[override]
        self, request: GetIdentityRulesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetIdentityRulesResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return GetIdentityRulesResponse(rules=self.rules.get(request.workspace_id))


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
async def channel(identity: Identity) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    add_ConsentServiceServicer_to_server(Consent(), server)
    add_IdentityServiceServicer_to_server(identity, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc.channel(f"127.0.0.1:{port}") as connected:
        yield connected
    await server.stop(grace=None)


def asked(*names: str) -> list[bytes]:
    return [ResolveIdentitiesRequest(inputs=[IdentityInput(message_id=name)]).SerializeToString() for name in names]


async def test_a_batch_is_one_call(channel: grpc.aio.Channel, identity: Identity) -> None:
    found = await IdentityClient(channel).resolve(asked("a", "b", "c"))
    assert [ResolvedIdentity.FromString(one).profile_id for one in found] == ["a", "b", "c"]
    assert identity.batches == [3]
    evaluate = EvaluateConsentRequest(inputs=[ConsentInput(message_id="a")]).SerializeToString()
    assert await ConsentClient(channel).evaluate([evaluate]) == [EvaluatedConsent(granted_purposes=["a"])]


@pytest.mark.parametrize(("limit", "value"), [("MAX_INPUTS", 2), ("MAX_REQUEST_BYTES", len(b"".join(asked("a", "b"))))])
async def test_a_batch_that_is_too_large_goes_in_halves(
    channel: grpc.aio.Channel, identity: Identity, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(clients, limit, value)
    found = await IdentityClient(channel).resolve(asked(*"abcde"))
    assert [ResolvedIdentity.FromString(one).profile_id for one in found] == list("abcde")
    assert sorted(identity.batches) == [1, 2, 2]


async def test_nothing_is_asked_about_nothing(channel: grpc.aio.Channel, identity: Identity) -> None:
    assert await IdentityClient(channel).resolve([]) == []
    assert identity.batches == []


async def test_a_missing_result_is_never_taken_for_another_event_s(channel: grpc.aio.Channel) -> None:
    with pytest.raises(Internal):
        await IdentityClient(channel).resolve(asked("a", "lost", "c"))


async def test_the_places_of_identifiers_follow_the_rules_and_outlive_identity(channel: grpc.aio.Channel, identity: Identity) -> None:
    places = IdentifierPlaces(IdentityClient(channel))
    identity.away = True
    with pytest.raises(Unavailable):
        await places.of({"acme"})
    identity.away = False
    identity.rules["acme"] = IdentityRules(version=1, identifiers=[IdentifierRule(type="phone", paths=["traits.phone"])])
    event = track(user_id="u", traits={"phone": "+49", "card": "c"})
    assert list((await places.of({"acme", "plain"}))["acme"].identifiers(event)) == [("phone", "+49")]
    identity.rules["acme"] = IdentityRules(version=2, identifiers=[IdentifierRule(type="card", paths=["traits.card"])])
    assert list((await places.of({"acme"}))["acme"].identifiers(event)) == [("phone", "+49")]
    await places.reload()
    identity.away = True
    with pytest.raises(Unavailable):
        await places.reload()
    assert list((await places.of({"acme", "plain"}))["acme"].identifiers(event)) == [("card", "c")]
    identity.away = False
    del identity.rules["acme"]
    await places.reload()
    assert await places.of({"acme"}) == {}
