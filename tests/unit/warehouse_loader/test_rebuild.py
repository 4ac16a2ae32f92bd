"""Rebuilds as positions, rows of the archive as any warehouse has them now, and the windows in which they are brought."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.error.v1 import error_pb2
from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi.identity.v1.profile_pb2 import MAPPING_OPERATION_CREATED, GraphChanged, Identifier
from cdi_kernel.faults import TooLarge
from cdi_privacy import digest_of
from cdi_testing import builders
from cdi_testing.builders import WORKSPACE
from cdi_warehouse_loader.application.windows import through_windows
from cdi_warehouse_loader.domain.archive import rows_of
from cdi_warehouse_loader.domain.erasure import Tombstone
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads, tables_for
from cdi_warehouse_loader.domain.layout import GRAPH_SEQUENCE_FACTOR, GRAPH_TABLES, REJECTED_COLUMNS, SEQUENCE_FACTOR, STARTING_TABLES
from cdi_warehouse_loader.domain.leaving_out import rows_without_erased
from cdi_warehouse_loader.domain.load import START, Position, StreamPartition, Target
from cdi_warehouse_loader.domain.rebuild import Part, begin, emptied, flows, reached, rebuildable, rebuilds
from cdi_warehouse_loader.domain.side_rows import rejected_rows

LOADED = {
    StreamPartition("ENRICHED", 0): Position(70, 7),
    StreamPartition("ENRICHED", 1): Position(90, 9),
    StreamPartition("IDENTITY", 0): Position(5, 0),
    StreamPartition("REJECTED", 0): Position(3, 0),
}
AT_US = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("table", "bounds", "changes", "rejections", "messages"),
    [
        ("", {0: 7, 1: 9}, Part(0, 5), Part(0, 3), (0, 9)),
        ("tracks", {0: 7, 1: 9}, None, None, (0, 9)),
        ("id_graph_updates", {}, Part(0, 5), None, (0, 5)),
        ("rejected_events", {}, None, Part(0, 3), (0, 3)),
    ],
)
def test_a_rebuild_is_told_by_the_positions_that_begin_it(
    table: str, bounds: Mapping[int, int], changes: Part | None, rejections: Part | None, messages: tuple[int, int]
) -> None:
    first = begin(LOADED, WORKSPACE, "main", table)
    assert (first.bounds, first.changes, first.rejections, first.messages, first.number) == (bounds, changes, rejections, messages, 1)
    stored = {**LOADED, **first.start()}
    assert rebuilds(stored) == [first]
    second = begin({**stored, **first.position(first.end + 1, done=True)}, WORKSPACE, "main", table)
    assert second.number == 2
    known = rebuilds({**stored, **first.position(first.end + 1, done=True), **second.start()})
    assert [(one.number, one.done) for one in known] == [(1, True), (2, False)]
    assert known[0].messages == (messages[1] + 1, messages[1])


def test_how_far_it_is_moves_by_part() -> None:
    rebuild = begin(LOADED, WORKSPACE, "main", "")
    stored = {**LOADED, **rebuild.start(), **rebuild.changes_position(4 * GRAPH_SEQUENCE_FACTOR), **rebuild.rejections_position(AT_US)}
    (found,) = rebuilds(stored)
    assert (found.changes, found.rejections, found.next) == (Part(4 * GRAPH_SEQUENCE_FACTOR, 5), Part(AT_US, 3), 1)
    (found,) = rebuilds({**stored, **rebuild.position(4 * SEQUENCE_FACTOR)})
    assert found.messages == (4, 9)
    graph = begin(LOADED, WORKSPACE, "main", "id_graph_updates")
    (found,) = rebuilds({**graph.start(), **graph.changes_position(4 * GRAPH_SEQUENCE_FACTOR)})
    assert found.messages == (4, 5)


def test_a_rebuild_that_an_older_loader_began_brings_events_only() -> None:
    rebuild = begin(LOADED, WORKSPACE, "main", "")
    older = {where: at for where, at in rebuild.start().items() if not where.stream.startswith(("rebuild-changes", "rebuild-rejections"))}
    (found,) = rebuilds(older)
    assert (found.bounds, found.changes, found.rejections) == (rebuild.bounds, None, None)


@pytest.mark.parametrize("behind", list(LOADED))
def test_an_archive_has_to_have_reached_every_bound(behind: StreamPartition) -> None:
    rebuild = begin(LOADED, WORKSPACE, "main", "")
    at = LOADED[behind]
    assert reached(LOADED, rebuild)
    assert not reached({**LOADED, behind: Position(at.sequence - 1, max(0, at.source_sequence - 1))}, rebuild)
    assert not reached({where: at for where, at in LOADED.items() if where != behind}, rebuild)
    assert set(flows(2)) == LOADED.keys()


def test_rejected_events_are_the_only_table_that_is_not_emptied() -> None:
    tables = rebuildable({**STARTING_TABLES, "seen": STARTING_TABLES["tracks"], "profile_merges": {}, "elsewhere": {}})
    assert set(tables) == {*STARTING_TABLES, "seen"}
    assert set(tables) - set(emptied(tables)) == {"rejected_events"}


def changed(profile: str = "p", email: str = "her@example.com") -> GraphChanged:
    message = GraphChanged(workspace_id=WORKSPACE, change_time=builders.timestamp(builders.EVENT_TIME))
    message.canonicals.add(profile_id=profile, canonical_profile_id="whole")
    for kind, value in (("email", email), ("user_id", "u")):
        message.mappings.add(identifier=Identifier(type=kind, value=value), profile_id=profile, operation=MAPPING_OPERATION_CREATED)
    for name in ("email", "plan"):
        message.traits.add(profile_id=profile, name=name, value=b'"x"')
    return message


def graph(*messages: GraphChanged, columns: Sequence[str] = ()) -> dict[str, Any]:
    needs = tuple((path, frozenset({"ads"})) for path in columns)
    numbered = [Numbered(place, message) for place, message in enumerate(messages, 1)]
    return {load.table: load.rows for load in graph_loads("main", numbered, AT_US, personal=True, columns=needs)}


def test_a_change_has_one_number_in_all_warehouses() -> None:
    whole, narrow = graph(changed()), graph(changed(), columns=["traits.email"])
    start = GRAPH_SEQUENCE_FACTOR
    assert whole["profile_traits_updates"].column("seq").to_pylist() == [start + 3, start + 4]
    assert narrow["external_id_mapping_updates"].select(["external_id_type", "seq"]).to_pylist() == [
        {"external_id_type": "user_id", "seq": start + 2}
    ]
    assert narrow["profile_traits_updates"].select(["name", "seq"]).to_pylist() == [{"name": "plan", "seq": start + 4}]
    mapping = changed()
    del mapping.mappings[1], mapping.traits[1]
    assert graph(mapping, columns=["traits.email"]).keys() == {"id_graph_updates"}


def test_a_warehouse_with_purposes_has_one_table_of_the_graph() -> None:
    assert tables_for(Target("main", "main", frozenset()), GRAPH_TABLES) == list(GRAPH_TABLES)
    assert tables_for(Target("main", "main", frozenset({"ads"})), GRAPH_TABLES) == ["id_graph_updates"]


@pytest.mark.parametrize(
    ("kind", "value", "gone"),
    [
        ("profile_id", "p", {"id_graph_updates": 1, "external_id_mapping_updates": 2, "profile_traits_updates": 2}),
        ("profile_id", "whole", {"id_graph_updates": 2}),
        ("email", "HER@example.com", {"external_id_mapping_updates": 1}),
        ("user_id", "her@example.com", {}),
    ],
)
@pytest.mark.parametrize(("erased_us", "counts"), [(0, True), (-1, False)])
def test_changes_of_erased_people_are_left_out(kind: str, value: str, gone: Mapping[str, int], erased_us: int, counts: bool) -> None:
    """By every id by which an erasure finds the row, if it is not later than the erasure."""
    at_us = round(builders.EVENT_TIME.timestamp() * 1_000_000)
    stones = {digest_of(WORKSPACE, kind, value.lower() if kind == "email" else value): Tombstone(0, at_us + erased_us)}
    tables = graph(changed(), changed("other", "his@example.com"))

    def look_up(digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        return {digest: stones[digest] for digest in digests if digest in stones}

    for table, rows in tables.items():
        left = rows_without_erased(table, rows, at_us + 1, look_up)
        assert rows.num_rows - left.num_rows == (gone.get(table, 0) if counts else 0)
        assert rows_without_erased(table, rows, at_us - 1, look_up).num_rows == rows.num_rows


@pytest.mark.parametrize(("stage", "payload"), [("collector", b'{"userId": "eve"}'), ("enrichment", b"\x32\x03eve")])
@pytest.mark.parametrize(("before_us", "left"), [(0, ["none", "other"]), (-1, ["hers", "none", "other"])])
def test_rejected_events_of_erased_people_are_left_out(stage: str, payload: bytes, before_us: int, left: Sequence[str]) -> None:
    at_us = round(builders.EVENT_TIME.timestamp() * 1_000_000)
    events = [
        RejectedEvent(rejection_id=each, workspace_id=WORKSPACE, stage=stage, payload=body, received_time=builders.timestamp(at))
        for each, body, at in (
            ("hers", payload, builders.EVENT_TIME),
            ("other", b'{"userId": "adam"}', builders.EVENT_TIME - timedelta(days=1)),
            ("none", b"", builders.EVENT_TIME),
        )
    ]
    stones = {digest_of(WORKSPACE, "user_id", "eve"): Tombstone(at_us + before_us, at_us + 5)}
    found = rows_without_erased("rejected_events", rejected_rows(events, AT_US), at_us + 5, lambda _: stones)
    assert sorted(found.column("rejection_id").to_pylist()) == left


def test_rows_of_any_engine_become_rows_that_are_loaded_now() -> None:
    event = RejectedEvent(rejection_id="r", workspace_id=WORKSPACE, stage="collector", payload=b"{}", payload_truncated=True)
    event.rejected_time.FromMicroseconds(AT_US)
    made = pa.Table.from_batches([rejected_rows([event], 1)])
    shouting = made.rename_columns([name.upper() for name in made.column_names]).select(list(reversed(range(made.num_columns))))
    rows = rows_of(REJECTED_COLUMNS, shouting, AT_US)
    assert rows.schema.names == list(REJECTED_COLUMNS)
    assert rows.schema == rejected_rows([event], 1).schema
    assert rows.to_pylist() == rejected_rows([event], AT_US).to_pylist()
    assert rows_of(REJECTED_COLUMNS, shouting.slice(1), AT_US).num_rows == 0


@given(
    places=st.lists(st.integers(0, 100_000), max_size=80),
    next_=st.integers(0, 50_000),
    first=st.integers(1, 10_000),
    most=st.integers(1, 40),
)
async def test_windows_bring_every_place_once_however_little_fits(places: list[int], next_: int, first: int, most: int) -> None:
    places = sorted(set(places))
    brought: list[int] = []

    async def fill(start: int, following: int) -> int:
        found = [place for place in places if start <= place < following]
        if len(found) > most:
            raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "too much")
        brought.extend(found)
        return len(found)

    end = max(places, default=0) + 1
    following = await through_windows(next_, end, first, fill)
    assert brought == [place for place in places if place >= next_]
    assert following >= max(next_, end)


async def test_a_place_that_holds_too_much_is_told() -> None:
    async def fill(start: int, following: int) -> int:
        raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "too much")

    with pytest.raises(TooLarge):
        await through_windows(0, 100, 64, fill)


def test_nothing_was_loaded_is_no_bound() -> None:
    rebuild = begin({}, WORKSPACE, "main", "")
    assert (rebuild.bounds, rebuild.changes, rebuild.messages) == ({}, Part(START.sequence, 0), (0, 0))
