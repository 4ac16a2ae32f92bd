"""`cdi profile`: one person, as identity and the warehouse know them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from cdi.identity.v1 import identity_service_pb2
from cdi.identity.v1 import profiles_service_pb2 as pb
from cdi_cli.peers import ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, complaints, reported, run
from cdi_kernel.faults import Unavailable

WorkspaceName = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace.")]
Who = Annotated[str, typer.Argument(metavar="WHO", help="An identifier as type:value, such as user_id:ada, or a profile id.")]
Events = Annotated[int, typer.Option("--events", min=1, max=1_000, help="At most so many events, the newest.")]


@reported
def profile(workspace: WorkspaceName, who: Who, directory: Directory = DEFAULT_DIRECTORY, events: Events = 100) -> None:
    """Show a person as JSON: profile, links, how it came to be this person, and the events of the last 14 days."""
    print(json.dumps(run(_person(find_suite(directory), workspace, who, events)), ensure_ascii=False, indent=2))


async def _person(endpoints: Endpoints, workspace: str, who: str, limit: int) -> dict[str, Any]:
    key = _key(who)
    async with connect_peers(endpoints) as peers:
        profiles = await peers.profiles()
        [found] = (await ask(profiles.BatchGetProfiles, pb.BatchGetProfilesRequest(workspace_id=workspace, keys=[key]))).found
        if not found.HasField("profile"):
            raise CommandFailed(f"nobody is known as {who} in workspace {workspace}")
        links = await ask(profiles.ListProfileLinks, pb.ListProfileLinksRequest(workspace_id=workspace, key=key))
        request = pb.ListProfileEventsRequest(workspace_id=workspace, key=key, page_size=limit)
        try:
            events = [_shown(event, "properties") for event in (await ask(profiles.ListProfileEvents, request)).events]
        except Unavailable as fault:
            complaints.print(f"events are left out: {fault.message}", style="yellow", markup=False)
            events = None
        history = identity_service_pb2.ExplainProfileRequest(workspace_id=workspace, profile_id=found.profile.profile_id)
        decisions = (await ask((await peers.identity()).ExplainProfile, history)).decisions
    return {
        "profile": _shown(found.profile, "traits"),
        "links": list(map(_shown, links.links)),
        "decisions": list(map(_shown, decisions)),
        "events": events,
    }


def _key(who: str) -> pb.ProfileKey:
    kind, separator, value = who.partition(":")
    key = pb.ProfileKey()
    if separator:
        key.identifier.type, key.identifier.value = kind, value
    else:
        key.profile_id = who
    return key


def _shown(message: Any, document: str = "") -> dict[str, Any]:
    """A message as JSON; a field of JSON bytes as what it says."""
    shown: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    if document:
        shown[document] = json.loads(getattr(message, document) or b"{}")
    return shown
