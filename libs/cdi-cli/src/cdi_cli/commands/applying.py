"""`cdi apply`: configuration from YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cdi_cli.documents import APPLY_ORDER, Document, DocumentError, read_documents
from cdi_cli.peers import connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, console, explained, reported, run
from cdi_kernel.faults import Fault

Files = Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file or a directory of them; may be repeated.")]


@reported
def apply(file: Files, directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Make sources, tracking plans, purposes, identity rules, computed traits, destinations and warehouses be as the files say."""
    documents = checked(file)
    run(send_documents(find_suite(directory), documents))


def checked(files: list[Path]) -> list[Document]:
    """The documents of files, all of them checked, in the order in which they are applied."""
    try:
        documents = read_documents(files)
    except DocumentError as error:
        raise CommandFailed(str(error)) from error
    return sorted(documents, key=lambda document: APPLY_ORDER[document.kind])


async def send_documents(endpoints: Endpoints, documents: list[Document]) -> None:
    """Send documents to their services and tell what each became; stops at the first that is refused."""
    async with connect_peers(endpoints) as peers:
        for document in documents:
            name = f"{document.kind} {document.metadata.workspace}/{document.metadata.name}"
            try:
                applied = await document.apply(peers)
            except Fault as fault:
                raise CommandFailed(f"{name}: {explained(fault)}") from fault
            console.print(f"{name}: {applied.outcome} (version {applied.version})")
