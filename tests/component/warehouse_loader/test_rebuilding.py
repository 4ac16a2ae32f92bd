"""Rebuilding what events do not fill, the identity graph and rejected events: rows as before, new documents, what arrives meanwhile."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi.consent.v1.purpose_pb2 import Purpose, WarehouseRule
from cdi.event.v1.rejected_event_pb2 import FAILURE_TYPE_SCHEMA_VIOLATION, RejectedBatch, RejectedEvent
from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_kernel import topology
from cdi_kernel.faults import FailedPrecondition, Fault
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell

from .conftest import graph_changed
from .test_archive import killed_again_and_again, rebuild, rebuilt, second_url, settings
from .test_connections import SERVICE, apply_once_up, second, streamed

__all__ = ["second_url"]

GRAPH = ("id_graph_updates", "external_id_mapping_updates", "profile_traits_updates")
SIDE = (*GRAPH, "rejected_events")


@pytest.fixture
async def consents() -> AsyncIterator[tuple[Consents, PrivacySide, str]]:
    servicer = Consents()
    async with AsyncExitStack() as stack:
        side, address = await stack.enter_async_context(privacy_side((add_ConsentServiceServicer_to_server, servicer)))
        yield servicer, side, address


class Rejections:
    """Publishes to REJECTED as the collector and enrichment do."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.published = 0

    async def publish(self, *ids: str, payload: bytes = b'{"userId": "adam"}', workspace_id: str = builders.WORKSPACE) -> None:
        """One message with a rejected event for each id."""
        self.published += 1
        at = builders.EVENT_TIME + timedelta(minutes=self.published)
        events = [
            RejectedEvent(
                rejection_id=each,
                workspace_id=workspace_id,
                source_id="web",
                failure_type=FAILURE_TYPE_SCHEMA_VIOLATION,
                reason="missing_name",
                stage="collector",
                received_time=builders.timestamp(at),
                rejected_time=builders.timestamp(at + timedelta(microseconds=number)),
                payload=payload,
            )
            for number, each in enumerate(ids)
        ]
        body = RejectedBatch(events=events).SerializeToString()
        await self._bus.publish(topology.rejected(workspace_id), body, message_id=f"rejected-{self.published}")


@pytest.fixture
def rejections(bus: Bus) -> Rejections:
    return Rejections(bus)


def change(number: int, workspace_id: str = builders.WORKSPACE) -> GraphChanged:
    """A person with a user id, an e-mail address and two traits, who is found to be part of the first one."""
    profile = f"p{number}"
    return graph_changed(
        canonicals=[(profile, "p0")],
        created=[("user_id", f"u{number}", profile), ("email", f"u{number}@example.com", profile)],
        traits=[(profile, "email", b'"x"'), (profile, "plan", b'"pro"')],
        workspace_id=workspace_id,
        cause=f"m{number}",
    )


async def rows(client: Any, table: str, schema: str = "main", connection: str = "") -> list[list[Any]]:
    """The rows of a table, all columns but the time of the load, in the order of their keys."""
    answer, _ = await streamed(client, f"select * from {schema}.{table}", connection=connection)
    names = sorted(name for name in answer.column_names if name != "loaded_at")
    found = [[str(row[name]) for name in names] for row in answer.to_pylist()]
    return sorted(found)


async def side(client: Any, schema: str = "main", connection: str = "") -> dict[str, list[list[Any]]]:
    return {table: await rows(client, table, schema, connection) for table in SIDE}


async def holds(client: Any, counts: Sequence[int], schema: str = "main", connection: str = "") -> bool:
    """Whether the tables have so many rows."""
    try:
        found = await side(client, schema, connection)
    except Fault:
        return False
    return [len(found[table]) for table in SIDE] == list(counts)


async def test_tables_that_are_rebuilt_are_what_they_were(
    start_loader: Any, graph: Any, rejections: Rejections, ask: Any, tmp_path: Path
) -> None:
    client = await ask(start_loader(**settings(tmp_path)))
    await graph.change(*map(change, range(20)))
    await rejections.publish(*(f"r{number}" for number in range(7)))
    await rejections.publish("r0", "r7")
    await eventually(lambda: holds(client, (20, 40, 40, 8)))
    await eventually(lambda: holds(client, (20, 40, 40, 8), "cdi_archive", "second"))
    before, views, counts = await side(client), await rows(client, "user_traits"), await client.counts()
    assert {(row[0]) for row in await client.rows("select canonical_profile_id from profile_merges")} == {"p0"}
    begun = await rebuild(client)
    assert begun.number == 1
    await rebuilt(client)
    assert await side(client) == before
    for number, table in enumerate(SIDE, 2):
        begun = await rebuild(client, table=table)
        assert (begun.next_sequence, begun.last_sequence) == (0, 2 if table == "rejected_events" else 20)
        await rebuilt(client, number)
        assert await side(client) == before
    assert await rows(client, "user_traits") == views
    assert await client.counts() == counts


async def test_a_new_document_is_filled_with_what_it_may_have_and_nobody_who_was_erased(
    second_url: str, start_loader: Any, enrichment: Any, graph: Any, rejections: Rejections, bus: Bus, ask: Any, consents: Any
) -> None:
    """Of each engine: the archive and the new warehouses are in one connection."""
    servicer, privacy, address = consents
    narrow = WarehouseRule(warehouse="narrow", columns=["traits.email"])
    few = WarehouseRule(warehouse="few", rows=True)
    servicer.purposes = [Purpose(workspace_id=builders.WORKSPACE, name="ads", warehouses=[narrow, few], version=1)]
    client = await ask(start_loader(CDI_CONSENT_TARGET=address, CDI_WAREHOUSES=json.dumps({"second": second_url}), CDI_ARCHIVE="second"))
    await graph.change(*map(change, range(5)), change(99, "elsewhere"))
    await rejections.publish("r1", "r2")
    await rejections.publish("hers", payload=b'{"userId": "u3"}')
    await rejections.publish("others", workspace_id="elsewhere")
    await eventually(lambda: holds(client, (6, 12, 12, 4), "cdi_archive", "second"))
    asked = order(SERVICE, ("user_id", "u3"), ("email", "u3@example.com"), profiles=["p3"])
    await tell(bus, asked)
    await privacy.reported(asked, SERVICE)
    assert await holds(client, (5, 10, 10, 3), "cdi_archive", "second")
    for name in ("whole", "narrow", "few"):
        await apply_once_up(client, name, connection="second", schema=name)
    await enrichment.publish([builders.track(message_id="m")])  # the rules of the workspace are asked for
    await eventually(lambda: holds(client, (0, 0, 0, 0), "few", "second"))
    for number, name in enumerate(("whole", "narrow", "few"), 1):
        await rebuild(client, name)
        await rebuilt(client, number)
    archived = await side(client, "cdi_archive", "second")
    own = {table: [row for row in archived[table] if "elsewhere" not in row] for table in SIDE}
    assert await side(client, "whole", "second") == own
    assert "u3" not in json.dumps(own)
    assert "hers" not in json.dumps(own)
    narrowed = await side(client, "narrow", "second")
    assert narrowed["external_id_mapping_updates"] == [row for row in own["external_id_mapping_updates"] if "user_id" in row]
    assert narrowed["profile_traits_updates"] == [row for row in own["profile_traits_updates"] if "plan" in row]
    assert {table: narrowed[table] for table in ("id_graph_updates", "rejected_events")} == {
        table: own[table] for table in ("id_graph_updates", "rejected_events")
    }
    assert await side(client, "few", "second") == {**own, "external_id_mapping_updates": [], "profile_traits_updates": []}


async def test_an_archive_that_holds_erased_people_again_does_not_bring_them_back(
    start_loader: Any, graph: Any, rejections: Rejections, bus: Bus, ask: Any, consents: Any, tmp_path: Path
) -> None:
    """As one does that was restored from a backup, or is behind with an order: the tombstones of the warehouse that is rebuilt count."""
    _, privacy, address = consents
    loader = start_loader(CDI_CONSENT_TARGET=address, **settings(tmp_path))
    client = await ask(loader)
    await graph.change(change(1), change(2))
    await rejections.publish("hers", payload=b'{"userId": "u2"}')
    await rejections.publish("his")
    await eventually(lambda: holds(client, (2, 4, 4, 2), "cdi_archive", "second"))
    await eventually(lambda: holds(client, (2, 4, 4, 2)))
    loader.stop()
    backup = (tmp_path / "second.duckdb").read_bytes()
    loader.start()
    client = await ask(loader)
    asked = order(SERVICE, ("user_id", "u2"), ("email", "u2@example.com"), profiles=["p2"])
    await tell(bus, asked)
    await privacy.reported(asked, SERVICE)
    before = await side(client)
    assert [len(before[table]) for table in SIDE] == [1, 2, 2, 1]
    loader.stop()
    (tmp_path / "second.duckdb").write_bytes(backup)
    loader.start()
    client = await ask(loader)
    await eventually(lambda: holds(client, (2, 4, 4, 2), "cdi_archive", "second"))
    await rebuild(client)
    await rebuilt(client)
    assert await side(client) == before


async def test_what_arrives_meanwhile_is_there_once_over_kill_9(
    start_loader: Any, graph: Any, rejections: Rejections, ask: Any, tmp_path: Path
) -> None:
    loader = start_loader(**settings(tmp_path), CDI_LOAD_LINGER_SECONDS="0.2")
    client = await ask(loader)
    sent = 0

    async def publish(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):
            await graph.change(change(sent))
            await rejections.publish(f"r{sent}")
            sent += 1

    await publish(150)
    await eventually(lambda: holds(client, (sent, 2 * sent, 2 * sent, sent)))
    await rebuild(client)
    await killed_again_and_again(loader, publish)
    client = await ask(loader)
    await rebuilt(client)
    await eventually(lambda: holds(client, (sent, 2 * sent, 2 * sent, sent)))
    await eventually(lambda: holds(client, (sent, 2 * sent, 2 * sent, sent), "cdi_archive", "second"))
    for table, key in (*((table, "seq") for table in GRAPH), ("rejected_events", "rejection_id")):
        assert await client.value(f"select count(*) - count(distinct {key}) from {table}") == 0
    assert await rows(client, "id_graph_updates") == await rows(client, "id_graph_updates", "cdi_archive", "second")


async def test_a_warehouse_that_is_younger_than_the_streams_gets_everything(
    start_loader: Any, enrichment: Any, graph: Any, rejections: Rejections, bus: Bus, ask: Any, tmp_path: Path
) -> None:
    """Its readers have nothing left to read, so only the archive says how far it is."""
    loader = start_loader(**settings(tmp_path))
    client = await ask(loader)
    await enrichment.publish([builders.track(message_id="old")])
    await graph.change(change(1))
    await rejections.publish("r1")
    await eventually(lambda: holds(client, (1, 2, 2, 1), "cdi_archive", "second"))
    await client.loaded(1)
    for stream in ("ENRICHED", "IDENTITY", "REJECTED"):
        await bus.api(f"STREAM.PURGE.{stream}")
    loader.stop()
    warehouses = {**json.loads(second(tmp_path)), "third": f"duckdb:{tmp_path}/third.duckdb"}
    client = await ask(start_loader(name="younger", CDI_WAREHOUSES=json.dumps(warehouses), CDI_ARCHIVE="second"))
    await apply_once_up(client, "late", connection="third", schema="late")
    await rebuild(client, "late")
    await rebuilt(client)
    assert await holds(client, (1, 2, 2, 1), "late", "third")
    assert len(await rows(client, "tracks", "late", "third")) == 1
    await graph.change(change(2))
    await rejections.publish("r2")
    await enrichment.publish([builders.track(message_id="new")])
    await eventually(lambda: holds(client, (2, 4, 4, 2), "late", "third"))


async def test_changes_that_the_archive_does_not_hold_are_not_thrown_away(
    start_loader: Any, graph: Any, bus: Bus, ask: Any, tmp_path: Path
) -> None:
    loader = start_loader()
    client = await ask(loader)
    await graph.change(change(1))
    await eventually(lambda: holds(client, (1, 2, 2, 0)))
    await bus.api("STREAM.PURGE.IDENTITY")
    loader.stop()
    client = await ask(start_loader(name="archiving", **settings(tmp_path)))
    await graph.change(change(2))
    await eventually(lambda: holds(client, (1, 2, 2, 0), "cdi_archive", "second"))
    for table in ("", *GRAPH):
        with pytest.raises(FailedPrecondition):
            await rebuild(client, table=table)
    assert await holds(client, (2, 4, 4, 0))


async def test_rows_of_another_workspace_stay(start_loader: Any, graph: Any, rejections: Rejections, ask: Any, tmp_path: Path) -> None:
    client = await ask(start_loader(**settings(tmp_path)))
    await graph.change(change(1), change(2, "elsewhere"))
    await rejections.publish("r1")
    await rejections.publish("r2", workspace_id="elsewhere")
    await eventually(lambda: holds(client, (2, 4, 4, 2)))
    for table in ("", *GRAPH):
        with pytest.raises(FailedPrecondition):
            await rebuild(client, table=table)
    await rebuild(client, table="rejected_events")
    await rebuilt(client)
    assert await holds(client, (2, 4, 4, 2))
