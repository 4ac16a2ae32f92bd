"""`cdi privacy`: what people ask about their data, made and followed at the consent service."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.table import Column, Table

from cdi.consent.v1 import consent_service_pb2, privacy_pb2
from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi_cli.peers import ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, Workspace, complaints, console, reported, run
from cdi_runtime.rpc import stream

DOWNLOAD_SECONDS: Final = 3_600.0
"""Of a whole archive."""

MAX_IDS: Final = 5_000
"""Of one call (privacy_service.proto)."""

_VERB: Final = "PRIVACY_VERB_"
_STATUS: Final = "PRIVACY_STATUS_"

privacy: Final = typer.Typer(no_args_is_help=True, help="What people ask about their data: access, erase, suppress.")


class Regulation(enum.StrEnum):
    """Whose deadline."""

    GDPR = "gdpr"
    US = "us"


Who = Annotated[list[str], typer.Argument(metavar="WHO...", help="Ids as type:value, such as user_id:ada; a request for each.")]
Same = Annotated[bool, typer.Option("--same-person", help="All ids are those of one person.")]
File = Annotated[Path | None, typer.Option("--file", "-f", help="A file with an id as type:value per line, in the place of arguments.")]
Law = Annotated[Regulation, typer.Option("--regulation", help="Whose deadline: 30 days or 45.")]
Ticket = Annotated[str, typer.Option("--ticket", help="Your own id; asking again with the same one makes nothing twice.")]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Internal = Annotated[bool, typer.Option("--internal", help="Do not tell destinations to delete.")]
Suppress = Annotated[bool, typer.Option("--suppress", help="And take nothing of this person any more.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The file; written only when it is complete.")]
WantedStatus = Annotated[str, typer.Option("--status", help="Only these, such as running or failed.")]


@privacy.callback()
def begin() -> None:
    """What people ask about their data."""


@privacy.command()
@reported
def access(
    who: Who = [],  # noqa: B006 - typer reads it and never changes it
    file: File = None,
    same_person: Same = False,
    regulation: Law = Regulation.GDPR,
    ticket: Ticket = "",
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Gather all that is held about people, for `cdi privacy download`."""
    _create("ACCESS", who, file, same_person, regulation, ticket, directory, workspace)


@privacy.command()
@reported
def erase(
    who: Who = [],  # noqa: B006
    file: File = None,
    same_person: Same = False,
    internal: Internal = False,
    suppress: Suppress = False,
    regulation: Law = Regulation.GDPR,
    ticket: Ticket = "",
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Erase people, here and at destinations."""
    verb = ("SUPPRESS_WITH_DELETE" if suppress else "DELETE") + ("_INTERNAL" if internal else "" if suppress else "_ONLY")
    _create(verb, who, file, same_person, regulation, ticket, directory, workspace)


@privacy.command("suppress")
@reported
def suppress_only(
    who: Who = [],  # noqa: B006
    file: File = None,
    same_person: Same = False,
    regulation: Law = Regulation.GDPR,
    ticket: Ticket = "",
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Take nothing of these people any more; what is there stays."""
    _create("SUPPRESS_ONLY", who, file, same_person, regulation, ticket, directory, workspace)


@privacy.command()
@reported
def unsuppress(
    who: Who = [],  # noqa: B006
    file: File = None,
    same_person: Same = False,
    regulation: Law = Regulation.GDPR,
    ticket: Ticket = "",
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Take events of these people again."""
    _create("UNSUPPRESS", who, file, same_person, regulation, ticket, directory, workspace)


@privacy.command()
@reported
def status(request: RequestId, as_json: AsJson = False, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main") -> None:
    """One request, store by store."""
    asked = pb.GetPrivacyRequestRequest(workspace_id=workspace, request_id=request)
    found: privacy_pb2.PrivacyRequest = run(_ask(find_suite(directory), "GetPrivacyRequest", asked)).request
    if as_json:
        print(json.dumps(_shown(found), indent=2))
        return
    table = Table("service", "store", "status", "count", "told", "detail", title=_title(found))
    for step in found.steps:
        table.add_row(step.service, step.store, _status(step.status), f"{step.count:,}", f"{step.attempts}", step.detail)
    console.print(table)


@privacy.command("list")
@reported
def list_requests(
    status: WantedStatus = "", as_json: AsJson = False, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main"
) -> None:
    """The newest thousand requests."""
    name = _STATUS + status.upper()
    if status and name not in privacy_pb2.PrivacyStatus.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        raise CommandFailed(f"there is no status {status!r}")
    asked = pb.ListPrivacyRequestsRequest(workspace_id=workspace, page_size=1_000)
    if status:
        asked.status = privacy_pb2.PrivacyStatus.Value(name)
    found = run(_ask(find_suite(directory), "ListPrivacyRequests", asked)).requests
    if as_json:
        print(json.dumps([_shown(one) for one in found], indent=2))
        return
    table = Table(Column("request", no_wrap=True), "asks for", "status", "made", "until", "done")
    for one in found:
        done = one.finish_time.ToJsonString() if one.HasField("finish_time") else ""
        table.add_row(one.request_id, _verb(one.verb), _status(one.status), one.create_time.ToJsonString(), _day(one), done)
    console.print(table)


@privacy.command()
@reported
def retry(request: RequestId, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main") -> None:
    """Tell the services again whose part is not done."""
    asked = pb.RetryPrivacyRequestRequest(workspace_id=workspace, request_id=request)
    console.print(_title(run(_ask(find_suite(directory), "RetryPrivacyRequest", asked)).request))


@privacy.command()
@reported
def report(request: RequestId, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main") -> None:
    """Print the signed report of a request that has ended, once its signature was checked."""
    asked = pb.GetPrivacyReportRequest(workspace_id=workspace, request_id=request)
    found: pb.GetPrivacyReportResponse = run(_ask(find_suite(directory), "GetPrivacyReport", asked))
    key = load_pem_public_key(found.public_key.encode())
    try:
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidSignature
        key.verify(found.signature, found.report)
    except InvalidSignature:
        raise CommandFailed("the signature does not fit the report: it was changed, or signed with another key") from None
    document = {"report": json.loads(found.report), "signature": found.signature.hex(), "public_key": found.public_key}
    print(json.dumps(document, indent=2))
    complaints.print("the signature fits", style="green")


@privacy.command()
@reported
def download(request: RequestId, output: Output, directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main") -> None:
    """Write the archive of an access request to a file that only its owner can read."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    asked = pb.DownloadArchiveRequest(workspace_id=workspace, request_id=request)
    try:
        run(_download(find_suite(directory), asked, partial))
        partial.replace(output)
    except OSError as error:
        raise CommandFailed(f"{output}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    complaints.print(f"{output}: {output.stat().st_size:,} bytes", soft_wrap=True)


def _create(
    verb: str, who: list[str], file: Path | None, same: bool, regulation: Regulation, ticket: str, directory: Path, workspace: str
) -> None:
    ids = [_subject(text) for text in (who or _lines(file))]
    if not ids or len(ids) > MAX_IDS:
        raise CommandFailed(f"name between 1 and {MAX_IDS:,} ids as type:value")
    people = [pb.PrivacyPerson(subjects=ids)] if same else [pb.PrivacyPerson(subjects=[one]) for one in ids]
    number = privacy_pb2.PrivacyVerb.Value(_VERB + verb)
    asked = pb.CreatePrivacyRequestsRequest(
        workspace_id=workspace, verb=number, people=people, regulation=regulation.value, client_request_id=ticket
    )
    answer: pb.CreatePrivacyRequestsResponse = run(_ask(find_suite(directory), "CreatePrivacyRequests", asked))
    for result in answer.results:
        print(result.request_id or f"refused: {result.status.message}")
    if any(not result.request_id for result in answer.results):
        raise CommandFailed("not all were taken")


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise CommandFailed(f"{file}: {error}") from error


def _subject(text: str) -> consent_service_pb2.Subject:
    kind, separator, value = text.partition(":")
    if not (kind and separator and value):
        raise CommandFailed("an id is written as type:value, such as user_id:ada")
    return consent_service_pb2.Subject(type=kind, id=value)


async def _ask(endpoints: Endpoints, method: str, request: Message) -> Any:
    async with connect_peers(endpoints) as peers:
        return await ask(getattr(await peers.privacy(), method), request)


async def _download(endpoints: Endpoints, request: pb.DownloadArchiveRequest, partial: Path) -> None:
    async with connect_peers(endpoints) as peers:
        method = (await peers.privacy()).DownloadArchive
        answers: AsyncIterator[pb.DownloadArchiveResponse] = stream(method, request, timeout=DOWNLOAD_SECONDS, peer="consent")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: ASYNC230 - a command has nothing else to do
            async for answer in answers:
                file.write(answer.piece)


def _title(request: privacy_pb2.PrivacyRequest) -> str:
    return f"{request.request_id}: {_verb(request.verb)}, {_status(request.status)}, until {_day(request)}"


def _verb(number: int) -> str:
    return privacy_pb2.PrivacyVerb.Name(privacy_pb2.PrivacyVerb.ValueType(number)).removeprefix(_VERB).lower()


def _status(number: int) -> str:
    return privacy_pb2.PrivacyStatus.Name(privacy_pb2.PrivacyStatus.ValueType(number)).removeprefix(_STATUS).lower()


def _day(request: privacy_pb2.PrivacyRequest) -> str:
    return request.deadline_time.ToJsonString()[:10]


def _shown(request: privacy_pb2.PrivacyRequest) -> dict[str, Any]:
    shown: dict[str, Any] = json_format.MessageToDict(request, preserving_proto_field_name=True)
    return shown
