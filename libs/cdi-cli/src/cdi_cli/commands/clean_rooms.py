"""`cdi clean-room`: noised aggregates for partners, the log of their queries, and what they have left."""

from __future__ import annotations

import json
import re
from typing import Annotated, Final

import typer

from cdi.warehouse.v1 import clean_room_pb2, clean_room_service_pb2
from cdi_cli.commands.querying import table_of
from cdi_cli.peers import ask, connect_peers
from cdi_cli.suite import Endpoints, find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, Workspace, complaints, console, reported, run
from cdi_kernel.clock import parse_instant

clean_room: Final = typer.Typer(no_args_is_help=True, help="Noised aggregates for partners.")

_CONDITION: Final = re.compile(r"(\w+)(>=|<|=)(.+)", re.DOTALL)

Room = Annotated[str, typer.Argument(help="Name of the clean room.")]
Table = Annotated[str, typer.Argument(help="A table that it declares.")]
Aggregates = Annotated[list[str], typer.Option("--aggregate", "-a", help="people, count, sum:COLUMN or average:COLUMN.")]
By = Annotated[list[str], typer.Option("--by", help="A declared key.")]
Where = Annotated[
    list[str], typer.Option("--where", help="'country=DE|FR', 'vip=true', 'total>=10', 'timestamp<2026-02-01T00:00:00Z'; all have to hold.")
]
Epsilon = Annotated[float, typer.Option("--epsilon", help="What the answer may cost of the budget.")]
PartnerToken = Annotated[str, typer.Option("--token", help="A partner's token.", envvar="CDI_PARTNER_TOKEN")]
Partner = Annotated[str, typer.Option("--partner", help="Whose.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]


@clean_room.callback()
def begin() -> None:
    """Noised aggregates for partners."""


@clean_room.command()
@reported
def query(
    room: Room,
    table: Table,
    token: PartnerToken,
    aggregate: Aggregates = ["people"],  # noqa: B006 - typer reads it and never changes it
    by: By = [],  # noqa: B006
    where: Where = [],  # noqa: B006
    epsilon: Epsilon = 0.1,
    as_json: AsJson = False,
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Ask for aggregates, as a partner."""
    request = clean_room_service_pb2.QueryAggregatesRequest(
        workspace_id=workspace,
        clean_room=room,
        table=table,
        aggregates=map(aggregate_of, aggregate),
        group_by=by,
        conditions=map(condition_of, where),
        epsilon=epsilon,
    )
    answer = run(_query(find_suite(directory), token, request))
    if as_json:
        for group in answer.groups:
            values = {name: {"value": value.value, "accuracy": value.accuracy} for name, value in zip(aggregate, group.values, strict=True)}
            print(json.dumps(dict(zip(by, group.keys, strict=True)) | values, ensure_ascii=False))
    else:
        console.print(table_of([*by, *aggregate], [[*group.keys, *map(_shown, group.values)] for group in answer.groups]))
    told = f"{answer.suppressed_groups:,} groups too small; epsilon spent {answer.epsilon_spent:g}, left {answer.epsilon_left:g}"
    complaints.print(told, soft_wrap=True)


@clean_room.command()
@reported
def log(
    room: Room,
    partner: Partner = "",
    token: PartnerToken = "",
    limit: Limit = 100,
    as_json: AsJson = False,
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """Who asked what, newest first: of all partners, or with a partner's token of that one."""
    request = clean_room_service_pb2.ListQueriesRequest(workspace_id=workspace, clean_room=room, partner=partner, page_size=limit)
    names = ("id", "time", "partner", "epsilon", "outcome", "groups", "repeats", "query")
    rows = [_logged(each) for each in run(_log(find_suite(directory), token, request)).queries]
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
    else:
        console.print(table_of(names, rows))


@clean_room.command()
@reported
def budget(
    room: Room,
    partner: Partner = "",
    token: PartnerToken = "",
    directory: Directory = DEFAULT_DIRECTORY,
    workspace: Workspace = "main",
) -> None:
    """What a partner has left in this period."""
    if not (partner or token):
        raise CommandFailed("whose budget? give --partner, or a partner's token")
    request = clean_room_service_pb2.GetBudgetRequest(workspace_id=workspace, clean_room=room, partner=partner)
    found = run(_budget(find_suite(directory), token, request))
    renews = found.period_end_time.ToJsonString()
    console.print(f"{found.partner}: {found.spent:g} of epsilon {found.epsilon:g} spent, renews at {renews}", soft_wrap=True)


def aggregate_of(text: str) -> clean_room_service_pb2.Aggregate:
    """An aggregate as it is typed: ``people``, ``count``, ``sum:total``, ``average:total``.

    Raises:
        CommandFailed: there is no such function.
    """
    name, _, column = text.partition(":")
    functions = ("people", "count", "sum", "average")
    if name not in functions:
        raise CommandFailed(f"{text!r} is no aggregate: write {', '.join(functions)}, and a column as in sum:total")
    return clean_room_service_pb2.Aggregate(function=clean_room_service_pb2.Function.Value(f"FUNCTION_{name.upper()}"), column=column)


def condition_of(text: str) -> clean_room_pb2.Condition:
    """A condition as it is typed; ``true`` and ``false`` are booleans, after ``>=`` and ``<`` stand numbers or instants.

    Raises:
        CommandFailed: it is none.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise CommandFailed(f"{text!r} is no condition: write column=text, column=one|two, column>=number or column<instant")
    column, sign, value = match.groups()
    if sign == "=":
        if value in {"true", "false"}:
            return clean_room_pb2.Condition(column=column, boolean=value == "true")
        return clean_room_pb2.Condition(column=column, texts=clean_room_pb2.Texts(values=value.split("|")))
    condition, end = clean_room_pb2.Condition(column=column), "at_least" if sign == ">=" else "below"
    try:
        setattr(condition.numbers, end, float(value))
    except ValueError:
        instant = parse_instant(value)
        if instant is None:
            raise CommandFailed(f"{text!r} has neither a number nor an instant after {sign}") from None
        getattr(condition.times, end).FromMicroseconds(instant)
    return condition


async def _query(
    endpoints: Endpoints, token: str, request: clean_room_service_pb2.QueryAggregatesRequest
) -> clean_room_service_pb2.QueryAggregatesResponse:
    async with connect_peers(endpoints) as peers:
        return await ask((await peers.clean_rooms(token)).QueryAggregates, request)


async def _log(
    endpoints: Endpoints, token: str, request: clean_room_service_pb2.ListQueriesRequest
) -> clean_room_service_pb2.ListQueriesResponse:
    async with connect_peers(endpoints) as peers:
        return await ask((await peers.clean_rooms(token)).ListQueries, request)


async def _budget(
    endpoints: Endpoints, token: str, request: clean_room_service_pb2.GetBudgetRequest
) -> clean_room_service_pb2.GetBudgetResponse:
    async with connect_peers(endpoints) as peers:
        return await ask((await peers.clean_rooms(token)).GetBudget, request)


def _shown(value: clean_room_service_pb2.AggregateValue) -> str:
    return f"{value.value:,.10g} ± {value.accuracy:,.3g}" if value.accuracy else f"{value.value:,.10g}"


def _logged(entry: clean_room_service_pb2.LoggedQuery) -> list[str | float]:
    outcome = clean_room_service_pb2.QueryOutcome.Name(entry.outcome).removeprefix("QUERY_OUTCOME_").lower()
    time = entry.query_time.ToJsonString()
    return [entry.query_id, time, entry.partner, entry.epsilon, outcome, entry.groups, entry.repeats, entry.query]
