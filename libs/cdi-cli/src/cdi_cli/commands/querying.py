"""`cdi query`: SQL over the warehouse, through the loader."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from rich.table import Table

from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, complaints, console, reported, run

_NUMBER: Final = re.compile(r"-?[\d,]*\.?\d+")

Sql = Annotated[str, typer.Argument(help="One read-only statement.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per row.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a heading.")]
MaxRows = Annotated[int, typer.Option("--max-rows", min=1, max=10_000, help="At most so many rows.")]


@reported
def query(
    sql: Sql, directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False, as_csv: AsCsv = False, max_rows: MaxRows = 1_000
) -> None:
    """Ask the warehouse."""
    names, rows, truncated = run(query_rows(find_suite(directory), sql, max_rows))
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(["" if value is None else value for value in row] for row in rows)
    else:
        console.print(table_of(names, rows))
    if truncated:
        complaints.print(f"only the first {len(rows):,} rows are shown (--max-rows)", style="yellow")


async def query_rows(endpoints: Endpoints, sql: str, max_rows: int = 1_000) -> tuple[list[str], list[list[Any]], bool]:
    """Column names, rows, and whether there were more rows.

    Raises:
        Fault: the loader refused the statement.
    """
    async with connect_peers(endpoints) as peers:
        return await rows_of(peers, sql, max_rows)


async def rows_of(peers: Peers, sql: str, max_rows: int = 1_000) -> tuple[list[str], list[list[Any]], bool]:
    """``query_rows`` over open channels. Whole-number columns come as ``int``: JSON's numbers, as protobuf has them, are all floating."""
    answer = await ask((await peers.warehouse()).Query, warehouse_service_pb2.QueryRequest(sql=sql, max_rows=max_rows))
    whole = [column.type.endswith("INT") or column.type == "INTEGER" for column in answer.columns]
    rows = [
        [
            int(value) if is_whole and value is not None else value
            for value, is_whole in zip(json_format.MessageToDict(row), whole, strict=True)
        ]
        for row in answer.rows
    ]
    return [column.name for column in answer.columns], rows, answer.truncated


def table_of(names: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """Rows as a table; numbers to the right."""
    table = Table(*names, title=title, title_justify="left")
    for index, column in enumerate(table.columns):
        if rows and all(_NUMBER.fullmatch(str(row[index])) or row[index] is None for row in rows):
            column.justify = "right"
    for row in rows:
        table.add_row(*("" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value) for value in row))
    return table
