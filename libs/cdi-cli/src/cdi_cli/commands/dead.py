"""`cdi dead-letters`: what was given up, by consumers of the bus and by destinations."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table

from cdi.event.v1 import rejected_event_pb2
from cdi.router.v1 import destination_pb2, router_service_pb2
from cdi_cli.peers import ask, connect_peers
from cdi_cli.streams import dead_letters as read_dead_letters
from cdi_cli.streams import open_bus
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, Workspace, console, reported, run

Destination = Annotated[str, typer.Option("--destination", help="Only of this destination.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="The newest so many of each kind.")]


@reported
def dead_letters(
    directory: Directory = DEFAULT_DIRECTORY, workspace: Workspace = "main", destination: Destination = "", limit: Limit = 50
) -> None:
    """List bus messages that a consumer gave up on, and deliveries that a destination refused or never took."""
    letters, deliveries = run(_read(find_suite(directory), workspace, destination, limit))
    if not letters and not deliveries:
        console.print("no dead letters")
    if letters and not destination:
        console.print(_letters_table(letters[-limit:]))
    if deliveries:
        console.print(_deliveries_table(deliveries))


async def _read(
    endpoints: Endpoints, workspace: str, destination: str, limit: int
) -> tuple[list[rejected_event_pb2.DeadLetter], list[destination_pb2.DeadDelivery]]:
    request = router_service_pb2.ListDeadDeliveriesRequest(workspace_id=workspace, destination=destination, page_size=limit)
    async with open_bus(endpoints, "dead-letters") as bus, connect_peers(endpoints) as peers:
        answer = await ask((await peers.router()).ListDeadDeliveries, request)
        return await read_dead_letters(bus), list(answer.deliveries)


def _letters_table(letters: list[rejected_event_pb2.DeadLetter]) -> Table:
    table = Table("service", "stream", "sequence", "reason", "when", "what", title="messages given up", title_justify="left")
    for letter in reversed(letters):
        table.add_row(letter.service, letter.stream, str(letter.sequence), letter.reason, _moment(letter.dead_time), letter.description)
    return table


def _deliveries_table(deliveries: list[destination_pb2.DeadDelivery]) -> Table:
    table = Table("destination", "message id", "reason", "status", "attempts", "when", title="deliveries given up", title_justify="left")
    for each in deliveries:
        status = str(each.response_status or "-")
        table.add_row(each.destination, each.message_id, each.reason, status, str(each.attempts), _moment(each.dead_time))
    return table


def _moment(time: Timestamp) -> str:
    return time.ToJsonString()[:19].replace("T", " ")
