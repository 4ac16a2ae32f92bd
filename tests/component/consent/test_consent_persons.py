"""Ids that become one person and are separated again: consent beside a real identity service."""

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import purpose_pb2
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.identity.v1 import identity_service_pb2 as identity_pb
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import Identifier
from cdi_testing import eventually
from cdi_testing.builders import message_id
from cdi_testing.plugin import StartService

WORKSPACE = "acme"
ADA, PHONE, TABLET = ("user_id", "ada"), ("anonymous_id", "phone"), ("anonymous_id", "tablet")
Id = tuple[str, str]


class Desk:
    """What the tests ask of both services."""

    def __init__(self, consent: ConsentServiceStub, identity: IdentityServiceStub) -> None:
        self.consent = consent
        self.identity = identity

    async def seen(self, *ids: Id) -> str:
        """Identity sees an event; the profile's id."""
        identifiers = [Identifier(type=kind, value=value) for kind, value in ids]
        given = identity_pb.IdentityInput(workspace_id=WORKSPACE, message_id=message_id(), identifiers=identifiers, event_type="track")
        answer = await self.identity.ResolveIdentities(identity_pb.ResolveIdentitiesRequest(inputs=[given]))
        return answer.identities[0].profile_id

    async def answered(self, who: Id, granted: bool) -> None:
        now = Timestamp()
        now.GetCurrentTime()
        decision = purpose_pb2.Decision(
            workspace_id=WORKSPACE, subject_type=who[0], subject_id=who[1], purpose="ads", granted=granted, decide_time=now, proof="form"
        )
        answer = await self.consent.RecordDecisions(pb.RecordDecisionsRequest(decisions=[decision]))
        assert answer.results[0].status.code == 0

    async def granted(self, *ids: Id) -> list[bool]:
        """Whether each id alone grants it."""
        inputs = [pb.ConsentInput(workspace_id=WORKSPACE, message_id=message_id(), **{kind: value}) for kind, value in ids]
        results = (await self.consent.EvaluateConsent(pb.EvaluateConsentRequest(inputs=inputs))).results
        return [bool(result.granted_purposes) for result in results]

    async def is_granted(self, ids: Sequence[Id], expected: Sequence[bool]) -> bool:
        return await self.granted(*ids) == list(expected)

    async def ledger(self, who: Id) -> list[purpose_pb2.Decision]:
        """Oldest first."""
        request = pb.ListDecisionsRequest(workspace_id=WORKSPACE, subject_type=who[0], subject_id=who[1])
        return list(reversed((await self.consent.ListDecisions(request)).decisions))

    async def state(self, profile_id: str) -> purpose_pb2.PurposeState:
        answer = await self.consent.GetConsent(pb.GetConsentRequest(workspace_id=WORKSPACE, profile_id=profile_id))
        return answer.purposes[0]

    async def broken(self) -> int:
        return len((await self.consent.VerifyLedger(pb.VerifyLedgerRequest(workspace_id=WORKSPACE))).breaks)


@pytest.fixture
async def desk(start_service: StartService) -> AsyncIterator[Desk]:
    identity = start_service("identity")
    consent = start_service("consent", {"CDI_IDENTITY_TARGET": identity.grpc})
    async with grpc.aio.insecure_channel(consent.grpc) as to_consent, grpc.aio.insecure_channel(identity.grpc) as to_identity:
        made = Desk(ConsentServiceStub(to_consent), IdentityServiceStub(to_identity))
        purpose = purpose_pb2.Purpose(workspace_id=WORKSPACE, name="ads", default_policy=purpose_pb2.DEFAULT_POLICY_ALLOW)
        await made.consent.ApplyPurpose(pb.ApplyPurposeRequest(purpose=purpose))
        yield made


async def test_after_a_merge_the_stricter_wins_and_after_a_split_each_has_its_own(desk: Desk) -> None:
    ada = await desk.seen(ADA)
    phone = await desk.seen(PHONE)
    await desk.answered(ADA, True)
    await desk.answered(PHONE, False)
    assert await desk.granted(ADA, PHONE) == [True, False]
    together = await desk.seen(ADA, PHONE)
    await eventually(lambda: desk.is_granted([ADA, PHONE], [False, False]))
    own, reached = await desk.ledger(ADA)
    (denial,) = await desk.ledger(PHONE)
    assert (own.granted, reached.granted, reached.source) == (True, False, purpose_pb2.DECISION_SOURCE_PROFILE)
    assert reached.proof == denial.decision_id
    state = await desk.state(together)
    assert (state.granted, len(state.decisions)) == (False, 2)
    other = phone if together == ada else ada
    split = identity_pb.SplitProfileRequest(
        workspace_id=WORKSPACE, profile_id=together, merged_profile_id=other, request_id="split", reason="not one person"
    )
    await desk.identity.SplitProfile(split)
    await eventually(lambda: desk.is_granted([ADA, PHONE], [True, False]))
    lifted = (await desk.ledger(ADA))[-1]
    assert (lifted.granted, lifted.source, lifted.proof) == (True, purpose_pb2.DECISION_SOURCE_SPLIT, reached.decision_id)
    assert await desk.broken() == 0


async def test_a_withdrawal_on_one_device_holds_on_all(desk: Desk) -> None:
    for device in (PHONE, TABLET):
        profile = await desk.seen(ADA, device)
    assert await desk.granted(ADA, PHONE, TABLET) == [True] * 3
    await desk.answered(PHONE, False)
    await eventually(lambda: desk.is_granted([ADA, PHONE, TABLET], [False] * 3))
    assert not (await desk.state(profile)).granted
    await desk.answered(TABLET, True)
    assert await desk.granted(ADA, PHONE, TABLET) == [False, False, True]
    state = await desk.state(profile)
    assert (state.granted, state.conflict) == (False, True)


async def test_nobody_has_a_profile_that_there_is_not(desk: Desk) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.state("01890000-0000-7000-8000-000000000000")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
