"""`cdi warehouse`: how the warehouses are, how their tables came to be as they are, and filling them anew."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
from rich.table import Table

from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_cli.peers import ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, console, reported, run

LOOK_SECONDS: Final = 1.0

warehouse = typer.Typer(no_args_is_help=True, help="Warehouses: how they are, the history of their tables, filling them anew.")

Loads = Annotated[int, typer.Option("--loads", min=1, max=100, help="So many of the newest loads of each.")]
WorkspaceName = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace.")]
WarehouseName = Annotated[str, typer.Argument(metavar="WAREHOUSE", help="Name of the warehouse.")]
TableName = Annotated[str, typer.Option("--table", help="Only this table.")]


@warehouse.command()
@reported
def status(directory: Directory = DEFAULT_DIRECTORY, loads: Loads = 5) -> None:
    """Show each connection: up or down, what waits to be loaded, the newest loads."""
    for connection in run(_status(find_suite(directory), loads)):
        state = f"down: {connection.down}" if connection.down else "up"
        waiting = ", ".join(f"{stream.stream} {stream.pending:,}" for stream in connection.streams)
        console.print(f"{connection.connection} ({connection.kind}) {state}; messages to load: {waiting}", markup=False, soft_wrap=True)
        if connection.loads:
            console.print(_table(connection))


@warehouse.command()
@reported
def schema(workspace: WorkspaceName, name: WarehouseName = "main", directory: Directory = DEFAULT_DIRECTORY, table: TableName = "") -> None:
    """Show the history of a warehouse's tables, oldest first."""
    shown = Table("when", "table", "column", "change", "type")
    for change in run(_changes(find_suite(directory), workspace, name, table)):
        when = change.change_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
        shown.add_row(when, change.table, change.column, change.change, change.type)
    console.print(shown)


@warehouse.command()
@reported
def rebuild(
    workspace: WorkspaceName, name: WarehouseName = "main", directory: Directory = DEFAULT_DIRECTORY, table: TableName = ""
) -> None:
    """Empty a warehouse, or one table of it, and fill it again from the archive; returns when it is done."""
    run(_rebuild(find_suite(directory), pb.RebuildWarehouseRequest(workspace_id=workspace, warehouse=name, table=table)))


def _table(connection: pb.ConnectionStatus) -> Table:
    table = Table("stream", "began", "ms", "events", "rows", "KB", "tables")
    for column in table.columns[2:]:
        column.justify = "right"
    for load in connection.loads:
        began = load.start_time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
        numbers = (load.duration.ToMilliseconds(), load.events, load.rows, load.bytes // 1_000, load.tables)
        table.add_row(load.stream, began, *(f"{number:,}" for number in numbers))
    return table


async def _status(endpoints: Endpoints, loads: int) -> list[pb.ConnectionStatus]:
    async with connect_peers(endpoints) as peers:
        return list((await ask((await peers.warehouse()).GetStatus, pb.GetStatusRequest(loads=loads))).connections)


async def _changes(endpoints: Endpoints, workspace: str, name: str, table: str) -> list[pb.SchemaChange]:
    changes: list[pb.SchemaChange] = []
    request = pb.ListSchemaChangesRequest(workspace_id=workspace, warehouse=name, table=table, page_size=1_000)
    async with connect_peers(endpoints) as peers:
        method = (await peers.warehouse()).ListSchemaChanges
        while True:
            page = await ask(method, request)
            changes += page.changes
            if not page.next_page_token:
                return changes
            request.page_token = page.next_page_token


async def _rebuild(endpoints: Endpoints, request: pb.RebuildWarehouseRequest) -> None:
    async with connect_peers(endpoints) as peers:
        stub = await peers.warehouse()
        begun = (await ask(stub.RebuildWarehouse, request)).rebuild
        while True:
            connections = (await ask(stub.GetStatus, pb.GetStatusRequest(loads=1))).connections
            now = next((one for connection in connections for one in connection.rebuilds if _same(one, begun)), begun)
            done = min(max(now.next_sequence - 1, 0), now.last_sequence)
            console.print(f"{done:,} of {now.last_sequence:,} messages", markup=False)
            if now.done:
                return
            await asyncio.sleep(LOOK_SECONDS)


def _same(one: pb.Rebuild, other: pb.Rebuild) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in ("workspace_id", "warehouse", "table", "number"))
