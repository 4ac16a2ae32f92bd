"""The identity graph in the warehouse: rows of every change once, views that follow, history that is attributed anew."""

import asyncio
import hashlib
import json
from typing import Any

from cdi.event.v1.event_pb2 import Event, IdentityResult
from cdi.event.v1.rejected_event_pb2 import DeadLetter
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_cli.embedded import ServiceProcess
from cdi_kernel import topology
from cdi_kernel.topology import StreamName
from cdi_runtime import rpc
from cdi_testing import builders

from .conftest import graph_changed

FACTOR = 1 << 20
"""Changes that one message may hold, as ``seq`` has it."""

EVERYBODY = "select id, canonical_profile_id from events_by_person order by id"


def seen(message_id: str, profile: str, **fields: Any) -> Event:
    """A track event that identity had given to a profile."""
    fields.setdefault("user_id", "")
    return builders.track("Seen", message_id=message_id, identity=IdentityResult(profile_id=profile), **fields)


async def test_every_change_is_a_numbered_row(start_loader: Any, graph: Any, ask: Any) -> None:
    client = await ask(start_loader())
    new = graph_changed(
        canonicals=[("p1", "p1")],
        created=[("email", "ada@example.com", "p1"), ("user_id", "ada", "p1")],
        traits=[("p1", "plan", b'{"name":"pro"}'), ("p1", "age", b"36")],
    )
    moved = graph_changed(
        canonicals=[("p2", "p2")],
        created=[("email", "ada@example.com", "p2")],
        removed=[("email", "ada@example.com", "p1")],
        traits=[("p1", "age", b"")],
        cause="split-1",
    )
    await graph.change(new, moved)
    await client.graph_loaded(2)
    at = "2026-01-15T12:00:00+00:00"
    assert await client.rows(
        "select workspace_id, profile_id, canonical_profile_id, triggering_event_type, triggering_event_id, timestamp, seq"
        " from id_graph_updates order by seq"
    ) == [[builders.WORKSPACE, "p1", "p1", "track", "m1", at, FACTOR], [builders.WORKSPACE, "p2", "p2", "track", "split-1", at, 2 * FACTOR]]
    sha256 = hashlib.sha256(b"ada@example.com").hexdigest()
    assert await client.rows(
        "select external_id_type, external_id_value, profile_id, operation, triggering_event_id, timestamp, seq"
        " from external_id_mapping_updates order by seq"
    ) == [
        ["email", "ada@example.com", "p1", "CREATED", "m1", at, FACTOR + 1],
        ["user_id", "ada", "p1", "CREATED", "m1", at, FACTOR + 2],
        ["email", "ada@example.com", "p1", "REMOVED", "split-1", at, 2 * FACTOR + 1],
        ["email", "ada@example.com", "p2", "CREATED", "split-1", at, 2 * FACTOR + 2],
    ]
    assert await client.rows(
        "select profile_id, name, value, event_timestamp, triggering_event_id, timestamp, seq from profile_traits_updates order by seq"
    ) == [
        ["p1", "plan", '{"name":"pro"}', at, "m1", at, FACTOR + 3],
        ["p1", "age", "36", at, "m1", at, FACTOR + 4],
        ["p1", "age", None, at, "split-1", at, 2 * FACTOR + 3],
    ]
    assert await client.rows("select distinct external_id_hash from external_id_mapping_updates where external_id_type = 'email'") == [
        [sha256]
    ]
    assert await client.rows("select external_id_type, canonical_profile_id from user_identifiers order by 1") == [
        ["email", "p2"],
        ["user_id", "p1"],
    ]
    assert await client.rows("select canonical_profile_id, name, value from user_traits") == [["p1", "plan", '{"name":"pro"}']]


async def test_history_follows_a_chain_of_merges_and_its_undoing(start_loader: Any, graph: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await graph.change(
        graph_changed(
            canonicals=[("a", "a"), ("b", "b"), ("c", "c")],
            created=[("user_id", "ada", "a"), ("anonymous_id", "n-b", "b"), ("anonymous_id", "n-c", "c")],
            traits=[("a", "plan", b'"pro"'), ("c", "city", b'"Bonn"')],
        )
    )
    await enrichment.publish([seen("1", "a", user_id="ada"), seen("2", "b", anonymous_id="n-b"), seen("3", "c", anonymous_id="n-c")])
    await graph.change(graph_changed(canonicals=[("c", "b")], traits=[("b", "city", b'"Bonn"')]))
    await graph.change(graph_changed(canonicals=[("b", "a"), ("c", "a")], traits=[("a", "city", b'"Bonn"')]))
    await enrichment.publish([seen("4", "a", anonymous_id="n-c"), seen("5", "a", anonymous_id="n-c", user_id="ada")])
    await client.graph_loaded(3)
    await client.loaded(5)
    assert await client.rows("select profile_id, canonical_profile_id from profile_merges order by 1") == [
        ["a", "a"],
        ["b", "a"],
        ["c", "a"],
    ]
    assert await client.rows(EVERYBODY) == [[str(number), "a"] for number in range(1, 6)]
    assert await client.rows("select canonical_profile_id, name from user_traits order by 2") == [["a", "city"], ["a", "plan"]]

    # b leaves a, and what was part of b goes with it.
    await graph.change(graph_changed(canonicals=[("b", "b"), ("c", "b")], traits=[("b", "city", b'"Bonn"'), ("a", "city", b"")]))
    await client.graph_loaded(4)
    assert await client.rows(EVERYBODY) == [["1", "a"], ["2", "b"], ["3", "b"], ["4", "b"], ["5", "a"]]
    assert await client.rows("select external_id_value, canonical_profile_id from user_identifiers order by 1") == [
        ["ada", "a"],
        ["n-b", "b"],
        ["n-c", "b"],
    ]
    assert await client.rows("select canonical_profile_id, name, value from user_traits order by 1") == [
        ["a", "plan", '"pro"'],
        ["b", "city", '"Bonn"'],
    ]


async def test_history_follows_identifiers_into_tables_that_came_later(start_loader: Any, graph: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await graph.change(
        graph_changed(canonicals=[("p", "p")], created=[("user_id", "ada", "p"), ("user_id", "bob", "p"), ("anonymous_id", "tablet", "p")])
    )
    await enrichment.publish([seen("1", "p", user_id="ada", anonymous_id="tablet"), seen("2", "p", user_id="bob", anonymous_id="tablet")])
    await graph.change(
        graph_changed(
            canonicals=[("q", "q")],
            removed=[("user_id", "bob", "p"), ("anonymous_id", "tablet", "p")],
            created=[("user_id", "bob", "q"), ("anonymous_id", "tablet", "q")],
        )
    )
    await client.graph_loaded(2)
    await client.loaded(2)
    assert await client.rows(EVERYBODY) == [["1", "p"], ["2", "q"]]
    await enrichment.publish(
        [
            builders.track(
                "Größe 1", message_id="3", user_id="bob", identity=IdentityResult(profile_id="p"), properties={"canonical_profile_id": 7}
            ),
            builders.page(message_id="4", user_id="", anonymous_id="tablet", identity=IdentityResult(profile_id="p"), context={"new": 1}),
        ]
    )
    await client.loaded(4)
    assert await client.rows(EVERYBODY) == [["1", "p"], ["2", "q"], ["3", "q"], ["4", "q"]]
    assert await client.rows("select id, _canonical_profile_id, canonical_profile_id from by_person('größe_1')") == [["3", 7, "q"]]
    assert await client.rows("select id, event_type, name, context_new, canonical_profile_id from by_person(pages) join events_by_person"
                             " using (id, name, canonical_profile_id)") == [["4", "page", "Home", 1, "q"]]  # fmt: skip


async def test_a_demoted_identifier_and_an_unlinkable_event_do_not_count(start_loader: Any, graph: Any, enrichment: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await graph.change(
        graph_changed(canonicals=[("p", "p"), ("q", "q")], created=[("user_id", "ada", "p"), ("email", "b@example.com", "q")]),
        graph_changed(created=[("anonymous_id", "kiosk", "p")]),
    )
    await enrichment.publish(
        [
            seen("user wins", "p", user_id="ada", anonymous_id="kiosk"),
            seen("not to be linked", "fallback", user_id="ada", anonymous_id="kiosk"),
            seen("blocked", "p", user_id="null", anonymous_id="kiosk"),
        ]
    )
    left_out = seen("it had the other's identifier once", "q", anonymous_id="kiosk")
    left_out.identity.demoted_identifier_types.append("anonymous_id")
    await enrichment.publish([left_out])
    await graph.change(graph_changed(canonicals=[("p", "q")]), graph_changed(canonicals=[("p", "p")]))
    await graph.change(
        graph_changed(canonicals=[("r", "r")], removed=[("anonymous_id", "kiosk", "p")], created=[("anonymous_id", "kiosk", "r")])
    )
    await client.graph_loaded(5)
    await client.loaded(4)
    assert dict(await client.rows(EVERYBODY)) == {
        "user wins": "p",
        "it had the other's identifier once": "q",
        "not to be linked": "fallback",
        "blocked": "r",
    }


async def test_killed_and_given_everything_again_it_loads_each_change_once(start_loader: Any, graph: Any, ask: Any) -> None:
    loader: ServiceProcess = start_loader()
    rounds, messages, changes = 2, 60, 40
    for number in range(rounds):
        client = await ask(loader)
        feeding = asyncio.create_task(_feed(graph, messages, changes))
        await client.graph_loaded(number * messages + 1)
        loader.kill()
        await feeding
        if number == 1:  # a consumer that begins anew is given every message once more
            await graph.bus.api(f"CONSUMER.DELETE.{StreamName.IDENTITY}.{topology.durable('warehouse-loader', 0)}")
        await asyncio.to_thread(loader.start)
    client = await ask(loader)
    await _feed(graph, 1, changes)  # it comes after all that is given again
    total = rounds * messages + 1
    await client.graph_loaded(total, within=60.0)
    for table in ("id_graph_updates", "external_id_mapping_updates", "profile_traits_updates"):
        assert await client.rows(f"select count(*), count(distinct seq) from {table}") == [[total * changes] * 2]
    assert await client.rows("select count(*), count(distinct canonical_profile_id) from profile_merges") == [[changes, 1]]
    assert await client.rows("select value from user_traits") == [[str(total)]]


async def _feed(graph: Any, messages: int, changes: int) -> None:
    """Profiles that are part of one after the other of them, and get a trait and an identifier with every message."""
    for number in range(graph.published + 1, graph.published + messages + 1):
        profiles = [f"p{place}" for place in range(changes)]
        await graph.change(
            graph_changed(
                canonicals=[(profile, f"p{number % changes}") for profile in profiles],
                created=[("anonymous_id", f"{profile}-{number}", profile) for profile in profiles],
                traits=[(profile, "n", str(number).encode()) for profile in profiles],
            )
        )


async def test_what_is_no_change_is_left_out_and_what_is_broken_becomes_a_dead_letter(start_loader: Any, graph: Any, ask: Any) -> None:
    client = await ask(start_loader())
    good = graph_changed(canonicals=[("p", "p")])
    broken = graph_changed(traits=[("p", "plan", b"\xff")])
    other = graph_changed(canonicals=[("x", "x")])
    await graph.change(other, kind="something-else")
    await graph.change(good, broken, graph_changed(canonicals=[("q", "q")]))
    await client.graph_loaded(4)
    assert await client.rows("select profile_id from profile_merges order by 1") == [["p"], ["q"]]
    assert await client.value("select count(*) from user_traits") == 0
    letter = DeadLetter.FromString((await graph.bus.message(StreamName.DEAD_LETTERS, 1)).payload)
    assert (letter.stream, letter.sequence) == (StreamName.IDENTITY, 3)


async def test_identifiers_and_traits_stay_out_of_a_warehouse_that_asks_for_purposes(start_loader: Any, graph: Any, ask: Any) -> None:
    client = await ask(start_loader())
    for name, purposes in (("main", []), ("marketing", ["advertising"])):
        document = pb.Warehouse(workspace_id=builders.WORKSPACE, name=name, purposes=purposes, schema=name)
        await rpc.call(client.stub.ApplyWarehouse, pb.ApplyWarehouseRequest(warehouse=document), timeout=5.0)
    await graph.change(
        graph_changed(canonicals=[("p", "p"), ("q", "p")], created=[("user_id", "ada", "p")], traits=[("p", "plan", b'"pro"')]),
        graph_changed(canonicals=[("x", "x")], created=[("user_id", "eve", "x")], workspace_id="another"),
    )
    await client.graph_loaded(2)
    counted = "select " + ", ".join(
        f"(select count(*) from {{0}}.{view})" for view in ("profile_merges", "user_identifiers", "user_traits")
    )
    assert await client.rows(counted.format("main")) == [[3, 2, 1]]
    assert await client.rows(counted.format("marketing")) == [[2, 0, 0]]


async def test_traits_of_a_person_as_one_document(start_loader: Any, graph: Any, ask: Any) -> None:
    client = await ask(start_loader())
    await graph.change(graph_changed(canonicals=[("p", "p")], traits=[("p", "plan", b'{"name":"pro"}'), ("p", "age", b"36")]))
    await client.graph_loaded(1)
    document = await client.value("select json_group_object(name, value::json) from user_traits where canonical_profile_id = 'p'")
    assert json.loads(document) == {"plan": {"name": "pro"}, "age": 36}
