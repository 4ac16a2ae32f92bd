"""`cdi audit`: is every accepted event accounted for at every sink?"""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.table import Table

from cdi_cli.audit import AuditLine, Reading, lines_of, settled_reading
from cdi_cli.peers import connect_peers
from cdi_cli.streams import open_bus
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, Workspace, console, reported, run

OUTCOMES: Final = ("duplicate", "rejected", "loaded", "delivered", "filtered", "suppressed", "dead_lettered", "parked", "earlier")
QUICK_SECONDS: Final = 3.0
"""How long a reading may take to agree with itself when nobody asked to wait."""

Wait = Annotated[bool, typer.Option("--wait", help="Wait until nothing is on its way.")]
Within = Annotated[float, typer.Option("--within", help="Seconds to wait, with --wait.")]
Reasons = Annotated[bool, typer.Option("--reasons", help="Show the reasons.")]


@reported
def audit(
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
    wait: Wait = False,
    within: Within = 60.0,
    reasons: Reasons = False,
) -> None:
    """Account for every accepted event at every sink; exit code 1 when it does not balance."""
    reading = run(read(find_suite(directory), workspace, within if wait else QUICK_SECONDS, parked=False))
    lines = lines_of(reading)
    show(reading, lines, reasons=reasons)
    if not all(line.settled if wait else line.balanced for line in lines):
        raise typer.Exit(1)


async def read(endpoints: Endpoints, workspace: str, within: float, *, parked: bool) -> Reading:
    """A reading in which nothing is on its way, or the last one after ``within`` seconds."""
    async with open_bus(endpoints, "audit") as bus, connect_peers(endpoints) as peers:
        return await settled_reading(bus, peers, workspace, endpoints.partitions, within=within, parked=parked)


def show(reading: Reading, lines: list[AuditLine], *, reasons: bool) -> None:
    """The account as a table, and what it means."""
    table = Table("events", *(line.sink for line in lines), title="audit", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    on_their_way = [line.unaccounted if line.waiting and line.unaccounted > 0 else 0 for line in lines]
    table.add_row("accepted", *(_figure(line.accepted) for line in lines), end_section=True)
    for outcome in OUTCOMES:
        table.add_row(outcome.replace("_", "-"), *(_figure(line.outcomes.get(outcome, 0)) for line in lines))
    table.add_section()
    table.add_row("in flight", *map(_figure, on_their_way))
    table.add_row("missing", *(_figure(line.unaccounted - waiting) for line, waiting in zip(lines, on_their_way, strict=True)))
    console.print(table)
    if reasons:
        console.print(_reasons_table(lines))
    if not reading.streams_whole:
        console.print("retention has removed messages: accepted and rejected are the services' own counts")
    if all(line.settled for line in lines):
        console.print("balanced: every accepted event is accounted for at every sink", style="green")
    elif all(line.balanced for line in lines):
        console.print("balanced so far: events are in flight (--wait waits for them)", style="yellow")
    else:
        console.print("NOT balanced", style="red")


def _reasons_table(lines: list[AuditLine]) -> Table:
    table = Table("sink", "outcome", "reason", "events")
    table.columns[3].justify = "right"
    for line in lines:
        for (outcome, reason), events in sorted(line.reasons.items()):
            table.add_row(line.sink, outcome, reason, _figure(events))
    return table


def _figure(number: int) -> str:
    return f"{number:,}"
