"""Erasing people from the warehouse: every table, the file itself, replays of every stream, crashes; and what access hands out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi.consent.v1.privacy_pb2 import PRIVACY_VERB_ACCESS
from cdi.event.v1.event_pb2 import Event
from cdi.event.v1.rejected_event_pb2 import RejectedBatch, RejectedEvent
from cdi_kernel import topology
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell
from tests.component.warehouse_loader.conftest import graph_changed

TOKEN = "planted-7f3a"
HER = (("user_id", f"{TOKEN}-user"), ("anonymous_id", f"{TOKEN}-device"), ("email", f"{TOKEN}@example.com"))
PROFILE = f"{TOKEN}-profile"
SERVICE = "warehouse-loader"


@pytest.fixture
async def side() -> AsyncIterator[tuple[PrivacySide, str]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(privacy_side((add_ConsentServiceServicer_to_server, Consents())))


def hers(number: int = 0) -> list[Event]:
    """Events of every kind that name her in one way or another."""
    context = {"traits": {"email": f"{TOKEN}@Example.com"}, "secret": f"{TOKEN}-context"}
    return [
        builders.track("Bought", message_id=f"t{number}", user_id=HER[0][1], properties={"note": f"{TOKEN}-note", "price": 3}),
        builders.track("Bought", message_id=f"u{number}", user_id=HER[0][1], properties={"price": f"{TOKEN}-no-number"}),
        builders.page(message_id=f"p{number}", anonymous_id=HER[1][1], properties={"url": f"https://x.example/{TOKEN}"}),
        builders.track("Seen", message_id=f"m{number}", user_id="someone", context=context),
        builders.identify(message_id=f"i{number}", user_id=HER[0][1], traits={"email": f"{TOKEN}@example.com", "name": TOKEN}),
        builders.alias(HER[1][1], message_id=f"a{number}", user_id="new-id"),
        builders.group(message_id=f"g{number}", user_id=HER[0][1], traits={"name": "Acme"}),
    ]


def others(number: int = 0) -> list[Event]:
    return [
        builders.track("Bought", message_id=f"ot{number}", user_id="other", properties={"note": "kept", "price": 1}),
        builders.identify(message_id=f"oi{number}", user_id="other", traits={"email": "other@example.com"}),
        builders.track("Bought", message_id=f"ow{number}", user_id=HER[0][1], workspace_id="elsewhere"),
    ]


async def reject(bus: Bus, number: int) -> None:
    """Three rejected events, two of them hers, as the collector and enrichment write them."""
    at = builders.timestamp(builders.EVENT_TIME)
    texts = {"c": f'{{"userId": "{HER[0][1]}", "event": '.encode(), "e": hers()[0].SerializeToString(), "o": b'{"userId": "other"}'}
    events = [
        RejectedEvent(
            rejection_id=f"{name}{number}", workspace_id=builders.WORKSPACE, message_id=f"r-{name}{number}", payload=payload,
            failure_type=1, stage="enrichment" if name == "e" else "collector", reason="invalid_field", received_time=at,
        )
        for name, payload in texts.items()
    ]  # fmt: skip
    await bus.publish(
        topology.rejected(builders.WORKSPACE), RejectedBatch(events=events).SerializeToString(), message_id=f"rejected-{number}"
    )


def her_graph() -> Any:
    return graph_changed(
        canonicals=[(PROFILE, PROFILE), ("other-profile", "other-profile")],
        created=[*((kind, value, PROFILE) for kind, value in HER), ("user_id", "other", "other-profile")],
        traits=[(PROFILE, "name", f'"{TOKEN}"'.encode()), ("other-profile", "name", b'"Other"')],
    )


async def planted(client: Any) -> dict[str, int]:
    """Rows with the token, by table, over all tables of all schemas."""
    tables = await client.rows("select schema_name, table_name from duckdb_tables() where database_name = 'warehouse'")
    found = {}
    for schema, table in tables:
        here = "coalesce(to_json(t)->>'workspace_id', '') <> 'elsewhere'"
        sql = f'select count(*) from "{schema}"."{table}" t where {here} and to_json(t)::varchar like \'%{TOKEN}%\''
        if rows := await client.value(sql):
            found[f"{schema}.{table}"] = rows
    return found


async def fill(enrichment: Any, graph: Any, bus: Bus, client: Any) -> None:
    await enrichment.publish([*hers(), *others()])
    await graph.change(her_graph())
    await reject(bus, 1)
    await client.loaded(10)
    await client.graph_loaded(1)
    await eventually(lambda: _is(client, "select count(*) from rejected_events", 3))


async def _is(client: Any, sql: str, wanted: object) -> bool:
    return bool(await client.value(sql) == wanted)


async def test_every_table_is_rid_of_her_and_of_nobody_else(
    start_loader: Any, enrichment: Any, graph: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str], tmp_path: Path
) -> None:
    consent, address = side
    loader = start_loader(CDI_CONSENT_TARGET=address, CDI_REWRITE_AFTER_SECONDS="0")
    client = await ask(loader)
    await fill(enrichment, graph, bus, client)
    asked = order(SERVICE, *HER, profiles=[PROFILE], verb=PRIVACY_VERB_ACCESS)
    await tell(bus, asked)
    await consent.reported(asked, SERVICE)
    held = consent.holdings[asked.request_id, SERVICE]
    assert {name: len(rows) for name, rows in held.items()} == {
        "main.tracks": 3, "main.bought": 2, "main.seen": 1, "main.pages": 1, "main.identifies": 1, "main.users": 1, "main.aliases": 1,
        "main.groups": 1, "main.rejected_events": 2, "main.id_graph_updates": 1, "main.external_id_mapping_updates": 3,
        "main.profile_traits_updates": 1,
    }  # fmt: skip
    assert {row["note"] for row in held["main.bought"]} == {f"{TOKEN}-note", None}

    erasing = order(SERVICE, *HER, profiles=[PROFILE])
    await tell(bus, erasing)
    steps = await consent.reported(erasing, SERVICE)
    assert {name: step.count for name, step in steps.items()} == {
        **{f"warehouse:{name}": len(rows) for name, rows in held.items()}, "warehouse:main.discards": 1,
    }  # fmt: skip
    assert await planted(client) == {}
    assert await client.rows("select id from bought order by id") == [["ot0"], ["ow0"]]
    assert await client.rows("select id from users order by id") == [["other"]]
    assert await client.rows("select rejection_id from rejected_events") == [["o1"]]
    assert await client.rows("select canonical_profile_id, name from user_traits") == [["other-profile", "name"]]
    assert await client.rows("select external_id_value from user_identifiers") == [["other"]]

    again = order(SERVICE, *HER, profiles=[PROFILE], request_id=erasing.request_id, attempt=2)
    await tell(bus, again)
    assert {name: step.count for name, step in (await consent.reported(again, SERVICE)).items()} == {"warehouse": 0}


async def test_nothing_of_her_is_left_in_the_file(
    start_loader: Any, enrichment: Any, graph: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str], tmp_path: Path
) -> None:
    consent, address = side
    loader = start_loader(CDI_CONSENT_TARGET=address, CDI_REWRITE_AFTER_SECONDS="0")
    client = await ask(loader)
    await fill(enrichment, graph, bus, client)
    assert _in_files(tmp_path)
    erasing = order(SERVICE, *HER, profiles=[PROFILE])
    elsewhere = order(SERVICE, HER[0], workspace_id="elsewhere")
    await tell(bus, erasing, elsewhere)
    await consent.reported(erasing, SERVICE)
    await consent.reported(elsewhere, SERVICE)
    await eventually(lambda: not _in_files(tmp_path))
    await enrichment.publish([builders.track("Bought", message_id="later", user_id="other")])
    await client.loaded(11)
    assert await client.rows("select id from bought order by id") == [["later"], ["ot0"]]
    assert await client.value("select count(*) from events_by_person") == 3
    loader.stop()
    assert not _in_files(tmp_path)


def _in_files(directory: Path) -> list[str]:
    files = [file for file in directory.iterdir() if ".duckdb" in file.name]
    assert files
    return [file.name for file in files if TOKEN.encode() in _content(file)]


def _content(file: Path) -> bytes:
    """What is in a file; nothing if it has gone since, as the new file has when it took the place of the old one, and of a folder."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        return file.read_bytes()
    return b""


@pytest.mark.parametrize("dead", [False, True])
async def test_replays_bring_nothing_back_and_later_events_are_taken(
    start_loader: Any, enrichment: Any, graph: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str], dead: bool
) -> None:
    consent, address = side
    loader = start_loader(CDI_CONSENT_TARGET=address)
    client = await ask(loader)
    await fill(enrichment, graph, bus, client)
    erasing = order(SERVICE, *HER, profiles=[PROFILE])
    await tell(bus, erasing)
    await consent.reported(erasing, SERVICE)
    if dead:
        loader.kill()
        await asyncio.to_thread(loader.start)
        client = await ask(loader)
    # The same events, published anew, as a replay of the streams before does.
    await enrichment.publish([*hers(), *others(9)])
    await graph.change(her_graph())
    await reject(bus, 2)
    await client.loaded(13)
    await client.graph_loaded(2)
    await eventually(lambda: _is(client, "select count(*) from rejected_events", 2))
    late = erasing.order_time.ToDatetime() + timedelta(seconds=1)
    await enrichment.publish([builders.track("Bought", message_id="hers-later", user_id=HER[0][1], at=late)])
    await client.loaded(14)
    assert await planted(client) == {"main.tracks": 1, "main.bought": 1}
    counts = await client.counts()
    assert counts["warehouse:main", "suppressed"] == 7
    assert counts["rejected", "suppressed"] == 2


async def test_a_report_that_consent_does_not_take_is_made_again_with_its_counts(
    start_loader: Any, enrichment: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str]
) -> None:
    consent, address = side
    client = await ask(start_loader(CDI_CONSENT_TARGET=address))
    await enrichment.publish(hers())
    await client.loaded(7)
    consent.away = True
    erasing = order(SERVICE, *HER)
    await tell(bus, erasing)
    await eventually(lambda: consent.calls > 1)
    assert await planted(client) == {}
    consent.away = False
    steps = await consent.reported(erasing, SERVICE)
    assert steps["warehouse:main.bought"].count == 2


async def test_many_orders_at_once_are_one_pass_while_events_flow(
    start_loader: Any, enrichment: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str]
) -> None:
    consent, address = side
    client = await ask(start_loader(CDI_CONSENT_TARGET=address))
    people = [f"{TOKEN}-{number}" for number in range(300)]
    for start in range(0, 300, 100):
        await enrichment.publish([builders.track(user_id=person) for person in people[start : start + 100]])
    await client.loaded(300)
    orders = [order(SERVICE, ("user_id", person)) for person in people]
    await tell(bus, *orders)
    await enrichment.publish([builders.track(user_id="other", at=builders.EVENT_TIME + timedelta(days=900))])
    for each in orders:
        assert (await consent.reported(each, SERVICE))["warehouse:main.tracks"].count == 1
    await client.loaded(301)
    assert await client.rows("select user_id from tracks") == [["other"]]
