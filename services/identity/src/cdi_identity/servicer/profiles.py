"""gRPC in: ``cdi.identity.v1.ProfilesService``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from cdi.identity.v1 import profiles_service_pb2 as pb
from cdi.identity.v1 import profiles_service_pb2_grpc as pb_grpc
from cdi_identity import convert, convert_profiles
from cdi_identity.reading import Profiles
from cdi_identity.watching import WatchedProfiles
from cdi_runtime.rpc import Registration

FULL_NAME = pb.DESCRIPTOR.services_by_name["ProfilesService"].full_name


class ProfilesServicer(pb_grpc.ProfilesServiceServicer):
    """The methods; faults are rendered by the interceptor."""

    def __init__(self, profiles: Profiles, watched: WatchedProfiles) -> None:
        self._profiles = profiles
        self._watched = watched

    async def BatchGetProfiles(self, request: pb.BatchGetProfilesRequest, context: Any) -> pb.BatchGetProfilesResponse:
        """Many at once."""
        workspace_id = convert.workspace(request.workspace_id)
        wanted = frozenset(convert_profiles.names(request.trait_names, "trait_names"))
        found = await self._profiles.find(workspace_id, convert_profiles.keys(request))
        return pb.BatchGetProfilesResponse(
            found=[convert_profiles.found_profile(profile, wanted, request.include_provenance) for profile in found]
        )

    async def ListProfiles(self, request: pb.ListProfilesRequest, context: Any) -> pb.ListProfilesResponse:
        """A page of a workspace's."""
        workspace_id = convert.workspace(request.workspace_id)
        after, size = convert_profiles.cursor(request.page_token), convert_profiles.page_size(request.page_size)
        page = await self._profiles.page(workspace_id, after, size)
        token = "" if page.cursor is None else str(page.cursor)
        return pb.ListProfilesResponse(profiles=map(convert.profile, page.items), next_page_token=token)

    async def ListProfileEvents(self, request: pb.ListProfileEventsRequest, context: Any) -> pb.ListProfileEventsResponse:
        """A page of a person's events."""
        workspace_id = convert.workspace(request.workspace_id)
        key = convert_profiles.key(request.key, workspace_id)
        names = convert_profiles.names(request.event_names, "event_names")
        before, size = convert_profiles.place(request.page_token), convert_profiles.page_size(request.page_size)
        return convert_profiles.events_response(await self._profiles.events(workspace_id, key, names, size, before))

    async def ListProfileLinks(self, request: pb.ListProfileLinksRequest, context: Any) -> pb.ListProfileLinksResponse:
        """A person's identifiers."""
        workspace_id = convert.workspace(request.workspace_id)
        links = await self._profiles.links(workspace_id, convert_profiles.key(request.key, workspace_id))
        return pb.ListProfileLinksResponse(links=map(convert_profiles.link, links))

    async def WatchProfile(self, request: pb.WatchProfileRequest, context: Any) -> AsyncIterator[pb.WatchProfileResponse]:
        """A profile as it changes."""
        workspace_id = convert.workspace(request.workspace_id)
        async for profile in self._watched.watch(workspace_id, convert_profiles.key(request.key, workspace_id)):
            yield pb.WatchProfileResponse(profile=convert.profile(profile))


def registration(profiles: Profiles, watched: WatchedProfiles) -> Registration:
    """The service, ready to be served."""
    return Registration(pb_grpc.add_ProfilesServiceServicer_to_server, ProfilesServicer(profiles, watched), FULL_NAME)
