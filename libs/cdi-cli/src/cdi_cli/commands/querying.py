"""`cdi query`: SQL over the warehouse, through the loader."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from rich.table import Table

from cdi.warehouse.v1 import warehouse_service_pb2
from cdi_cli.arrow_files import write_answer
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, complaints, console, reported, run
from cdi_runtime.rpc import stream

_NUMBER: Final = re.compile(r"-?[\d,]*\.?\d+")
EXPORT_SECONDS: Final = 900.0
"""For an answer that is written to a file."""

Answer = tuple[list[str], list[list[Any]], bool]
"""Column names, rows, and whether there were more rows."""

Sql = Annotated[str, typer.Argument(help="One read-only statement.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per row.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a heading.")]
MaxRows = Annotated[int, typer.Option("--max-rows", min=1, max=10_000, help="At most so many rows, unless they go to a file.")]
Output = Annotated[Path | None, typer.Option("--output", help="Write to FILE.csv or FILE.parquet, up to a million rows.")]
ConnectionName = Annotated[str, typer.Option("--connection", help="The loader's connection; its first one if none is named.")]
Purposes = Annotated[list[str] | None, typer.Option("--purpose", help="Only events for which all purposes that are named are granted.")]


@dataclass(frozen=True, slots=True)
class Question:
    """What the warehouse is asked.

    Attributes:
        sql: one read-only statement.
        connection: the loader's; empty for its first one.
        purposes: only events for which all of these are granted are there.
    """

    sql: str
    connection: str = ""
    purposes: Sequence[str] = ()


@reported
def query(
    sql: Sql,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    max_rows: MaxRows = 1_000,
    output: Output = None,
    connection: ConnectionName = "",
    purpose: Purposes = None,
) -> None:
    """Ask the warehouse."""
    suite, question = find_suite(directory), Question(sql, connection, purpose or ())
    if output is not None:
        written, truncated = run(_write(suite, question, output))
        console.print(f"{written:,} rows in {output}", markup=False)
    else:
        names, rows, truncated = run(answer_of(suite, question, max_rows))
        written = len(rows)
        _show(names, rows, as_json=as_json, as_csv=as_csv)
    if truncated:
        complaints.print(f"only the first {written:,} rows are there", style="yellow")


def _show(names: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(["" if value is None else value for value in row] for row in rows)
    else:
        console.print(table_of(names, rows))


async def answer_of(endpoints: Endpoints, question: Question, max_rows: int = 1_000) -> Answer:
    """The answer of a running suite; see ``rows_of``."""
    async with connect_peers(endpoints) as peers:
        return await rows_of(peers, question, max_rows)


async def _write(endpoints: Endpoints, question: Question, output: Path) -> tuple[int, bool]:
    """How many rows were written, and whether there were more."""
    request = warehouse_service_pb2.QueryRequest(sql=question.sql, connection=question.connection, purposes=question.purposes)
    async with connect_peers(endpoints) as peers:
        answer = stream((await peers.warehouse()).Query, request, timeout=EXPORT_SECONDS, peer="warehouse-loader")
        return await write_answer(answer, output)


async def rows_of(peers: Peers, question: Question, max_rows: int = 1_000) -> Answer:
    """Column names, rows, and whether there were more rows.

    Whole-number columns come as ``int``: JSON's numbers, as protobuf has them, are all floating.

    Raises:
        Fault: the loader refused the statement.
    """
    request = warehouse_service_pb2.QueryRowsRequest(
        sql=question.sql, max_rows=max_rows, connection=question.connection, purposes=question.purposes
    )
    answer = await ask((await peers.warehouse()).QueryRows, request)
    whole = [column.type.upper().endswith(("INT", "INTEGER", "INT32", "INT64")) for column in answer.columns]
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
