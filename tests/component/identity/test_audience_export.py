"""Exports of audiences with real identity and consent: who is in, who is not, and what is said of the others."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest

from cdi.consent.v1.consent_service_pb2 import ApplyPurposeRequest, RecordDecisionsRequest
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.consent.v1.purpose_pb2 import DEFAULT_POLICY_ALLOW, DEFAULT_POLICY_REQUIRE, Decision, Purpose
from cdi.identity.v1 import audiences_service_pb2 as pb
from cdi.identity.v1.audiences_service_pb2_grpc import AudiencesServiceStub
from cdi.identity.v1.computed_traits_service_pb2_grpc import ComputedTraitsServiceStub
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_runtime.bus import connect
from cdi_testing import eventually
from cdi_testing.builders import WORKSPACE
from cdi_testing.plugin import MigratedDatabases, StartService

from . import computed_calls
from .conftest import empty
from .identity_calls import resolve, seen


@dataclass(frozen=True)
class Pair:
    """Identity that knows consent."""

    identity: ServiceProcess
    consent: ServiceProcess
    database: str


@dataclass(frozen=True)
class Callers:
    """Stubs of both."""

    identity: IdentityServiceStub
    audiences: AudiencesServiceStub
    consent: ConsentServiceStub


@pytest.fixture(scope="module")
def pair(module_nats: NatsServer, migrated_database: MigratedDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("audiences")
    urls = {name: migrated_database(name) for name in ("consent", "identity")}
    settings = {name: {"CDI_NATS_URL": module_nats.url, "CDI_DATABASE_URL": url} for name, url in urls.items()}
    with (
        ServiceProcess("consent", settings["consent"], directory) as consent,
        ServiceProcess("identity", settings["identity"] | {"CDI_CONSENT_TARGET": consent.grpc}, directory) as identity,
    ):
        yield Pair(identity, consent, urls["identity"])


@pytest.fixture
async def callers(pair: Pair) -> AsyncIterator[Callers]:
    connection = await asyncpg.connect(pair.database)
    await empty(connection)
    await connection.close()
    async with grpc.aio.insecure_channel(pair.identity.grpc) as identity, grpc.aio.insecure_channel(pair.consent.grpc) as consent:
        yield Callers(IdentityServiceStub(identity), AudiencesServiceStub(identity), ConsentServiceStub(consent))


async def apply(stub: ConsentServiceStub, name: str, policy: int = DEFAULT_POLICY_REQUIRE) -> None:
    await stub.ApplyPurpose(ApplyPurposeRequest(purpose=Purpose(workspace_id=WORKSPACE, name=name, default_policy=policy)))


async def decide(stub: ConsentServiceStub, purpose: str, granted: bool, *subjects: str) -> None:
    """Subjects as ``"user_id:ada"``."""
    decisions = [
        Decision(workspace_id=WORKSPACE, subject_type=kind, subject_id=value, purpose=purpose, granted=granted, proof=f"form {granted}")
        for kind, _, value in (subject.partition(":") for subject in subjects)
    ]
    answer = await stub.RecordDecisions(RecordDecisionsRequest(decisions=decisions))
    assert not any(result.status.code for result in answer.results)


async def export(stub: AudiencesServiceStub, **fields: Any) -> tuple[list[pb.HashedPerson], int, int]:
    """People, and how many were withheld and unhashable."""
    request = pb.ExportAudienceRequest(**{"workspace_id": WORKSPACE, "scheme": pb.HASH_SCHEME_META, "purpose": "ads"} | fields)
    answers = [answer async for answer in stub.ExportAudience(request, timeout=20)]
    assert all(not answer.withheld and not answer.unhashable for answer in answers[:-1])
    return [person for answer in answers for person in answer.people], answers[-1].withheld, answers[-1].unhashable


def hashes(people: list[pb.HashedPerson]) -> set[str]:
    return {item.value for person in people for item in person.hashes}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_only_who_agreed_is_exported_and_a_withdrawal_holds_at_once(callers: Callers) -> None:
    await apply(callers.consent, "ads")
    await resolve(
        callers.identity,
        seen("user_id:ada", "email:ada@example.com", traits=b'{"phone":"+1 650 555 1212"}'),
        seen("user_id:eve", "email:eve@example.com"),
        seen("user_id:bob", "email:bob@example.com"),
        seen("user_id:nameless", "anonymous_id:n"),
        seen("user_id:foreign", "email:foreign@example.com", workspace="other"),
    )
    await decide(callers.consent, "ads", True, "user_id:ada", "user_id:eve", "user_id:nameless")
    people, withheld, unhashable = await export(callers.audiences)
    assert hashes(people) == {sha256("ada@example.com"), sha256("16505551212"), sha256("eve@example.com")}
    assert (withheld, unhashable) == (1, 1)
    await decide(callers.consent, "ads", False, "user_id:eve")
    people, withheld, unhashable = await export(callers.audiences)
    assert hashes(people) == {sha256("ada@example.com"), sha256("16505551212")}
    assert (withheld, unhashable) == (2, 1)


async def test_a_denial_of_any_id_of_the_person_counts(callers: Callers) -> None:
    await apply(callers.consent, "ads-any")
    await decide(callers.consent, "ads-any", True, "user_id:u1", "user_id:u2")
    await decide(callers.consent, "ads-any", False, "anonymous_id:tablet")
    visit, login, *_ = await resolve(
        callers.identity,
        seen("anonymous_id:tablet"),
        seen("user_id:u1", "email:u1@example.com"),
        seen("user_id:u2", "email:u2@example.com"),
    )
    people, withheld, _ = await export(callers.audiences, purpose="ads-any")
    assert (len(people), withheld) == (2, 0)
    await resolve(callers.identity, seen("user_id:u1", "anonymous_id:tablet"))
    people, withheld, _ = await export(callers.audiences, purpose="ads-any")
    assert (hashes(people), withheld) == ({sha256("u2@example.com")}, 1)
    for merged in (visit.profile_id, login.profile_id):
        assert await export(callers.audiences, purpose="ads-any", profile_ids=[merged]) == ([], 1, 0)


async def test_conditions_and_ids_choose(callers: Callers) -> None:
    await apply(callers.consent, "newsletter", DEFAULT_POLICY_ALLOW)
    batch = [
        seen(f"email:p{number}@example.com", traits=b'{"orders":%d,"plan":"%s"}' % (number, b"pro" if number % 2 else b"free"))
        for number in range(1_300)
    ]
    resolved = await resolve(callers.identity, *batch)
    strange = b'{"orders":1e999,"plan":"a\\u0000","huge":' + b"9" * 400 + b"}"
    await resolve(callers.identity, seen("email:strange@example.com", traits=strange))

    async def chosen(*conditions: pb.TraitCondition, **fields: Any) -> set[str]:
        people, withheld, unhashable = await export(callers.audiences, purpose="newsletter", conditions=conditions, **fields)
        assert (withheld, unhashable) == (0, 0)
        assert len({person.profile_id for person in people}) == len(people)
        return hashes(people)

    assert len(await chosen()) == 1_301
    rich = pb.TraitCondition(name="orders", value="1290", at_least=True)
    pro = pb.TraitCondition(name="plan", value='"pro"')
    assert await chosen(rich, pro) == {sha256(f"p{number}@example.com") for number in range(1_291, 1_300, 2)}
    assert await chosen(pb.TraitCondition(name="orders", value="7.0")) == {sha256("p7@example.com")}
    assert await chosen(pb.TraitCondition(name="huge")) == {sha256("strange@example.com")}
    assert await chosen(pb.TraitCondition(name="nobody")) == set()
    ids = [resolved[1_291].profile_id.upper(), resolved[3].profile_id, resolved[4].profile_id, "018f0000-0000-7000-8000-000000000000", "x"]
    assert await chosen(profile_ids=ids) == {sha256(f"p{number}@example.com") for number in (1_291, 3, 4)}
    assert await chosen(pro, profile_ids=ids) == {sha256(f"p{number}@example.com") for number in (1_291, 3)}
    assert await chosen(profile_ids=["x"]) == set()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"workspace_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"purpose": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"scheme": pb.HASH_SCHEME_UNSPECIFIED}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"scheme": 9}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"default_country": "Germany"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"profile_ids": ["x"] * 10_001}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition(name="a")] * 21}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition()]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition(name="a", value="gold")]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition(name="a", value="true", at_least=True)]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition(name="a", at_least=True)]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"conditions": [pb.TraitCondition(name="a", value="[" * 100_000)]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"purpose": "unknown"}, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_what_is_no_audience_is_refused(callers: Callers, fields: Mapping[str, Any], code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(callers.audiences, **fields)
    assert refused.value.code() is code


async def test_identity_that_was_not_told_where_consent_is_exports_nobody(start_service: StartService) -> None:
    async with grpc.aio.insecure_channel(start_service("identity").grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(AudiencesServiceStub(channel))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_while_consent_is_away_nobody_is_exported_and_resolving_goes_on(pair: Pair, callers: Callers) -> None:
    await apply(callers.consent, "ads-away", DEFAULT_POLICY_ALLOW)
    await resolve(callers.identity, seen("user_id:ada", "email:ada@example.com"))
    pair.consent.stop()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(callers.audiences, purpose="ads-away")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await resolve(callers.identity, seen("user_id:bob", "email:bob@example.com"))
    finally:
        pair.consent.start()

    async def back() -> int:
        with contextlib.suppress(grpc.aio.AioRpcError):
            return len((await export(callers.audiences, purpose="ads-away"))[0])
        return 0

    assert await eventually(back) == 2


async def test_a_condition_may_name_a_computed_trait(callers: Callers, pair: Pair, module_nats: NatsServer) -> None:
    await apply(callers.consent, "buyers", DEFAULT_POLICY_ALLOW)
    ada, eve = await resolve(callers.identity, seen("user_id:ada", "email:ada@example.com"), seen("user_id:eve", "email:eve@example.com"))
    async with connect(module_nats.url, "test") as bus, grpc.aio.insecure_channel(pair.identity.grpc) as channel:
        await computed_calls.apply(ComputedTraitsServiceStub(channel), computed_calls.trait("bought", "SUM", "properties.total"))
        await computed_calls.reading(bus)
        orders = [computed_calls.order(ada.profile_id, 4.5, user_id="ada") for _ in range(2)]
        await computed_calls.counted(bus, [*orders, computed_calls.order(eve.profile_id, 8.5, user_id="eve")])
    wanted = pb.TraitCondition(name="bought", value=b"9", at_least=True)
    people, _, _ = await export(callers.audiences, purpose="buyers", conditions=[wanted])
    assert hashes(people) == {sha256("ada@example.com")}
