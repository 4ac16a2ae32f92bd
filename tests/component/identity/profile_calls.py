"""How the tests of identity ask ``ProfilesService``."""

import asyncio
import json
from collections.abc import Callable, Sequence

import grpc

from cdi.identity.v1 import profiles_service_pb2 as pb
from cdi.identity.v1.profile_pb2 import GraphChanged, Profile
from cdi.identity.v1.profiles_service_pb2_grpc import ProfilesServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.topology import identity
from cdi_runtime.bus import Bus
from cdi_testing.builders import WORKSPACE, message_id

from .identity_calls import identifier


def key(text: str) -> pb.ProfileKey:
    """``"user_id:ada"``, or a profile id, as a key."""
    return pb.ProfileKey(identifier=identifier(text)) if ":" in text else pb.ProfileKey(profile_id=text)


async def batch(stub, *keys: str, workspace: str = WORKSPACE, **fields) -> Sequence[pb.FoundProfile]:
    """Profiles by any of their keys."""
    request = pb.BatchGetProfilesRequest(workspace_id=workspace, keys=map(key, keys), **fields)
    return list((await stub.BatchGetProfiles(request, timeout=20)).found)


async def listed(stub, workspace: str, page_size: int) -> list[list[Profile]]:
    """All pages of a workspace."""
    pages, token = [], ""
    while True:
        request = pb.ListProfilesRequest(workspace_id=workspace, page_size=page_size, page_token=token)
        answer = await stub.ListProfiles(request, timeout=20)
        pages.append(list(answer.profiles))
        token = answer.next_page_token
        if not token:
            return pages


async def events_of(stub, who: str, *, page_size: int = 0, **fields) -> list[list[pb.ProfileEvent]]:
    """All pages of a person's events."""
    pages, token = [], ""
    while True:
        request = pb.ListProfileEventsRequest(workspace_id=WORKSPACE, key=key(who), page_size=page_size, page_token=token, **fields)
        answer = await stub.ListProfileEvents(request, timeout=30)
        pages.append(list(answer.events))
        token = answer.next_page_token
        if not token:
            return pages


async def code_of(call) -> str:
    """The name of the status that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def announce(bus: Bus, *profile_ids: str) -> None:
    """What the outbox publishes after a change of these profiles."""
    change = GraphChanged(workspace_id=WORKSPACE)
    for profile_id in profile_ids:
        change.traits.add(profile_id=profile_id, name="any")
    await bus.publish(identity("changed"), change.SerializeToString(), message_id=message_id())


class Watch:
    """A caller that watches and keeps what it was told."""

    def __init__(self, process: ServiceProcess, who: str) -> None:
        self.channel = grpc.aio.insecure_channel(process.grpc)
        self.told: list[Profile] = []
        self.code = ""
        self.task = asyncio.ensure_future(self._watch(who))

    async def _watch(self, who: str) -> None:
        try:
            async for answer in ProfilesServiceStub(self.channel).WatchProfile(
                pb.WatchProfileRequest(workspace_id=WORKSPACE, key=key(who))
            ):
                self.told.append(answer.profile)
        except grpc.aio.AioRpcError as error:
            self.code = error.code().name

    @property
    def traits(self) -> object:
        return json.loads(self.told[-1].traits) if self.told else None

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.channel.close(grace=None)


Watching = Callable[[ServiceProcess, str], Watch]
