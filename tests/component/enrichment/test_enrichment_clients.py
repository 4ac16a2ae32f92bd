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
    """Grants to each event its own id; the more events, the newer the tombstones that it looked at."""

    async def EvaluateConsent(  # type: ignore[override]
        self, request: EvaluateConsentRequest, context: object
    ) -> EvaluateConsentResponse:
        results = [EvaluatedConsent(granted_purposes=[given.message_id]) for given in request.inputs]
        named = any(given.user_id for given in request.inputs)
        return EvaluateConsentResponse(results=results, tombstone_generation=len(results) if named else None)


class Identity(IdentityServiceServicer):
    """Names each profile after its event, and forgets events called ``lost``."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.judged: list[int | None] = []
        self.rules: dict[str, IdentityRules] = {}
        self.away = False

    async def ResolveIdentities(  # type: ignore[override]
        self, request: ResolveIdentitiesRequest, context: object
    ) -> ResolveIdentitiesResponse:
        self.batches.append(len(request.inputs))
        self.judged.append(request.tombstone_generation if request.HasField("tombstone_generation") else None)
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


def judging(name: str, user_id: str = "") -> bytes:
    return EvaluateConsentRequest(inputs=[ConsentInput(message_id=name, user_id=user_id)]).SerializeToString()


async def test_a_batch_is_one_call(channel: grpc.aio.Channel, identity: Identity) -> None:
    found = await IdentityClient(channel).resolve(asked("a", "b", "c"), 7)
    assert [ResolvedIdentity.FromString(one).profile_id for one in found] == ["a", "b", "c"]
    assert (identity.batches, identity.judged) == ([3], [7])
    evaluated = await ConsentClient(channel).evaluate([judging("a", "ada")])
    assert (list(evaluated.results), evaluated.tombstones) == ([EvaluatedConsent(granted_purposes=["a"])], 1)


@pytest.mark.parametrize(("limit", "value"), [("MAX_INPUTS", 2), ("MAX_REQUEST_BYTES", len(b"".join(asked("a", "b"))))])
async def test_a_batch_that_is_too_large_goes_in_halves(
    channel: grpc.aio.Channel, identity: Identity, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(clients, limit, value)
    found = await IdentityClient(channel).resolve(asked(*"abcde"), None)
    assert [ResolvedIdentity.FromString(one).profile_id for one in found] == list("abcde")
    assert (sorted(identity.batches), identity.judged) == ([1, 2, 2], [None] * 3)


async def test_of_several_answers_the_oldest_tombstones_count(channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_INPUTS", 2)
    evaluated = await ConsentClient(channel).evaluate([judging(name, "ada") for name in "abcde"])
    assert ([one.granted_purposes[0] for one in evaluated.results], evaluated.tombstones) == (list("abcde"), 1)
    # Where nobody was named no tombstone was looked at.
    evaluated = await ConsentClient(channel).evaluate([judging("a", "ada"), judging("b", "ada"), judging("c"), judging("d")])
    assert ([one.granted_purposes[0] for one in evaluated.results], evaluated.tombstones) == (list("abcd"), 2)
    assert (await ConsentClient(channel).evaluate([judging("a")])).tombstones is None


async def test_nothing_is_asked_about_nothing(channel: grpc.aio.Channel, identity: Identity) -> None:
    assert await IdentityClient(channel).resolve([], None) == []
    evaluated = await ConsentClient(channel).evaluate([])
    assert (list(evaluated.results), evaluated.tombstones) == ([], None)
    assert identity.batches == []


async def test_a_missing_result_is_never_taken_for_another_event_s(channel: grpc.aio.Channel) -> None:
    with pytest.raises(Internal):
        await IdentityClient(channel).resolve(asked("a", "lost", "c"), None)


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
