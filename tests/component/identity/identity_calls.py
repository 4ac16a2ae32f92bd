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
from cdi.identity.v1.profile_pb2 import MAPPING_OPERATION_REMOVED, CanonicalChange, GraphChanged, Identifier, Profile
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


async def resolve(stub: IdentityServiceStub, *inputs: IdentityInput, judged: int | None = None) -> Sequence[ResolvedIdentity]:
    """Resolves one batch, judged by consent's tombstones up to this generation."""
    response = await stub.ResolveIdentities(ResolveIdentitiesRequest(inputs=inputs, tombstone_generation=judged), timeout=20)
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


async def told(bus: Bus) -> list[GraphChanged]:
    """All changes of the graph on IDENTITY."""
    found: list[GraphChanged] = []
    with contextlib.suppress(NotFound):
        while True:
            message = await bus.message(StreamName.IDENTITY, len(found) + 1)
            assert message.subject == identity("changed")
            found.append(GraphChanged.FromString(message.payload))
    return found


async def published(bus: Bus, count: int) -> list[CanonicalChange]:
    """All merges on IDENTITY, each told once, once there are at least so many; before that nothing."""
    merges: list[CanonicalChange] = []
    merged: set[str] = set()
    for entry in (entry for change in await told(bus) for entry in change.canonicals):
        if entry.profile_id != entry.canonical_profile_id and entry.profile_id not in merged:
            merged.add(entry.profile_id)
            merges.append(entry)
    return merges if len(merges) >= count else []


class GraphAsTold:
    """What a reader of IDENTITY knows: the graph of each workspace made of nothing but the messages, in order."""

    def __init__(self, changes: Iterable[GraphChanged]) -> None:
        self.canonical: dict[str, str] = {}
        self.mappings: dict[tuple[str, str], str] = {}
        self.traits: dict[str, dict[str, bytes]] = {}
        for change in changes:
            self._take(change)

    def people(self, workspace: str = WORKSPACE) -> dict[str, frozenset[str]]:
        """The identifiers by canonical profile."""
        result: dict[str, frozenset[str]] = {}
        for (named, name), profile_id in self.mappings.items():
            if named == workspace:
                canonical = self.canonical[profile_id]
                result[canonical] = result.get(canonical, frozenset()) | {name}
        return result

    def _take(self, change: GraphChanged) -> None:
        for entry in change.canonicals:
            self.canonical[entry.profile_id] = entry.canonical_profile_id
            if entry.profile_id == entry.canonical_profile_id:
                self.traits.pop(entry.profile_id, None)
        for mapping in change.mappings:
            key = (change.workspace_id, f"{mapping.identifier.type}:{mapping.identifier.value}")
            if mapping.operation == MAPPING_OPERATION_REMOVED:
                del self.mappings[key]
            else:
                self.mappings[key] = mapping.profile_id
        for trait in change.traits:
            self.traits.setdefault(trait.profile_id, {})[trait.name] = trait.value
            if not trait.value:
                del self.traits[trait.profile_id][trait.name]
