"""`cdi audience export`: people as digests, for advertising platforms."""

from __future__ import annotations

import contextlib
import csv
import enum
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from cdi.identity.v1 import audiences_service_pb2
from cdi_cli.peers import connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, Workspace, complaints, reported, run
from cdi_runtime.rpc import stream

EXPORT_SECONDS: Final = 3_600.0
"""Of a whole export."""

audience: Final = typer.Typer(no_args_is_help=True, help="People for advertising platforms.")


class SchemeName(enum.StrEnum):
    """Whose normalization."""

    META = "meta"
    GOOGLE = "google"
    LIVERAMP = "liveramp"


Purpose = Annotated[str, typer.Option("--purpose", help="That has to be granted, such as advertising.")]
Scheme = Annotated[SchemeName, typer.Option("--scheme", help="Whose normalization.")]
Where = Annotated[list[str], typer.Option("--where", help="A condition: 'plan', 'plan=pro', 'orders>=3'; all of them have to hold.")]
Profile = Annotated[list[str], typer.Option("--profile", help="Only this profile; may be given several times.")]
Country = Annotated[str, typer.Option("--country", help="Of phone numbers without country code, such as DE.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per person in the place of CSV.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A file; written only when the export is complete.")]


@audience.callback()
def begin() -> None:
    """People for advertising platforms."""


@audience.command()
@reported
def export(
    purpose: Purpose,
    scheme: Scheme,
    where: Where = [],  # noqa: B006 - typer reads it and never changes it
    profile: Profile = [],  # noqa: B006
    country: Country = "",
    as_json: AsJson = False,
    output: Output = None,
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Export people as digests of their addresses and numbers, as far as their consent allows it."""
    request = audiences_service_pb2.ExportAudienceRequest(
        workspace_id=workspace,
        profile_ids=profile,
        conditions=map(condition_of, where),
        scheme=audiences_service_pb2.HashScheme.Value(f"HASH_SCHEME_{scheme.name}"),
        purpose=purpose,
        default_country=country,
    )
    columns = ("email_sha256", "phone_sha1" if scheme is SchemeName.LIVERAMP else "phone_sha256")
    with _opened(output) as file:
        write = _json_lines(file) if as_json else _csv(file, columns)
        people, withheld, unhashable = run(_export(find_suite(directory), request, write))
    told = f"{people:,} people exported, {withheld:,} withheld by consent, {unhashable:,} without address or number"
    complaints.print(told, soft_wrap=True)


def condition_of(text: str) -> audiences_service_pb2.TraitCondition:
    """A condition as it is typed: ``plan``, ``plan=pro``, ``plan="3"``, ``vip=true``, ``orders>=3``. What is no JSON is a text.

    Raises:
        CommandFailed: there is no name, or no number after ``>=``.
    """
    name, equals, value = text.partition("=")
    at_least = bool(equals) and name.endswith(">")
    name = name.removesuffix(">") if at_least else name
    if not name or (equals and not value):
        raise CommandFailed(f"{text!r} is no condition: write name, name=value or name>=number")
    try:
        json.loads(value or "0")
    except json.JSONDecodeError:
        value = json.dumps(value)
    return audiences_service_pb2.TraitCondition(name=name, value=value, at_least=at_least)


async def _export(
    endpoints: Endpoints,
    request: audiences_service_pb2.ExportAudienceRequest,
    write: Callable[[Iterable[audiences_service_pb2.HashedPerson]], None],
) -> tuple[int, int, int]:
    people = withheld = unhashable = 0
    async with connect_peers(endpoints) as peers:
        method = (await peers.audiences()).ExportAudience
        answers: AsyncIterator[audiences_service_pb2.ExportAudienceResponse] = stream(
            method, request, timeout=EXPORT_SECONDS, peer="identity"
        )
        async for answer in answers:
            write(answer.people)
            people += len(answer.people)
            withheld, unhashable = answer.withheld, answer.unhashable
    return people, withheld, unhashable


def _csv(file: TextIO, columns: tuple[str, str]) -> Callable[[Iterable[audiences_service_pb2.HashedPerson]], None]:
    """A row per person; who has several addresses or numbers gets as many rows."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("profile_id", *columns))

    def write(people: Iterable[audiences_service_pb2.HashedPerson]) -> None:
        for person in people:
            digests = _by_kind(person)
            for row in zip_longest(*(digests.get(column, ()) for column in columns), fillvalue=""):
                writer.writerow((person.profile_id, *row))

    return write


def _json_lines(file: TextIO) -> Callable[[Iterable[audiences_service_pb2.HashedPerson]], None]:
    def write(people: Iterable[audiences_service_pb2.HashedPerson]) -> None:
        for person in people:
            file.write(json.dumps({"profile_id": person.profile_id, **_by_kind(person)}) + "\n")

    return write


def _by_kind(person: audiences_service_pb2.HashedPerson) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in person.hashes:
        found.setdefault(item.type, []).append(item.value)
    return found


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Where the export goes: a file gets its name at the end, so that half an audience never passes for a whole one."""
    if output is None:
        yield sys.stdout
        return
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("w", encoding="utf-8") as file:
                yield file
            partial.replace(output)
        except OSError as error:
            raise CommandFailed(f"{output}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
