"""How the tests of identity ask it, and what they read from the stream."""

import contextlib
from collections.abc import Iterable, Sequence

import grpc

from cdi.identity.v1.identity_service_pb2 import (
    GetProfileRequest,
    IdentityInput,
    ResolvedIdentity,
    ResolveIdentitiesRequest,
)
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import Identifier, Profile, ProfilesMerged
from cdi_kernel.faults import NotFound
from cdi_kernel.topology import StreamName, identity
from cdi_runtime.bus import Bus
from cdi_testing.builders import EVENT_TIME, WORKSPACE, message_id, timestamp


def identifier(text: str) -> Identifier:
    """``"user_id:ada"`` as a message."""
    kind, _, value = text.partition(":")
    return Identifier(type=kind, value=value)


def seen(*identifiers: str, workspace: str = WORKSPACE, traits: bytes = b"", second: int = 0, **fields: str) -> IdentityInput:
    """The input of one event."""
    time = timestamp(EVENT_TIME)
    time.seconds += second
    values = {"message_id": message_id()} | fields
    return IdentityInput(workspace_id=workspace, identifiers=map(identifier, identifiers), traits=traits, event_time=time, **values)


async def resolve(stub: IdentityServiceStub, *inputs: IdentityInput) -> Sequence[ResolvedIdentity]:
    """Resolves one batch."""
    response = await stub.ResolveIdentities(ResolveIdentitiesRequest(inputs=inputs), timeout=20)
    return list(response.identities)


async def profile_of(stub: IdentityServiceStub, key: str, workspace: str = WORKSPACE) -> Profile | None:
    """The profile of an identifier such as ``"email:e"`` or of a profile id."""
    request = GetProfileRequest(workspace_id=workspace)
    if ":" in key:
        request.identifier.CopyFrom(identifier(key))
    else:
        request.profile_id = key
    try:
        return (await stub.GetProfile(request, timeout=10)).profile
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def names(profile: Profile) -> frozenset[str]:
    """The identifiers of a profile as texts."""
    return frozenset(f"{item.type}:{item.value}" for item in profile.identifiers)


async def published(bus: Bus, count: int) -> list[ProfilesMerged]:
    """All merges on IDENTITY once there are at least so many; before that nothing."""
    found: list[ProfilesMerged] = []
    with contextlib.suppress(NotFound):
        while True:
            message = await bus.message(StreamName.IDENTITY, len(found) + 1)
            assert message.subject == identity("merged")
            found.append(ProfilesMerged.FromString(message.payload))
    return found if len(found) >= count else []


def followed(merges: Iterable[ProfilesMerged]) -> dict[str, str]:
    """The canonical profile of every merged one, told in the order of the stream.

    Raises:
        AssertionError: a profile was merged twice, or went on after it had become part of another.
    """
    canonical: dict[str, str] = {}
    for merge in merges:
        assert merge.merged_profile_id not in canonical, "merged twice"
        assert merge.canonical_profile_id not in canonical, "out of order"
        canonical = {
            merged: merge.canonical_profile_id if owner == merge.merged_profile_id else owner for merged, owner in canonical.items()
        }
        canonical[merge.merged_profile_id] = merge.canonical_profile_id
    return canonical
