"""What every engine has to do with the loads that the loader makes. A new engine is one more ``Place`` here."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from cdi.event.v1.event_pb2 import Event
from cdi_kernel.faults import Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.layout import filled_by_events
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import Change

from .conftest import graph_changed
from .engines import LOADED, Place, load, load_graph, planned, records, rows

DAY = timedelta(days=1)


def everything() -> list[Event]:
    """One event of each type."""
    return [
        builders.track("Order Completed", message_id="m1", properties={"total": 12.5, "items": 3, "gift": True, "coupon": None}),
        builders.identify(message_id="m2", traits={"email": "ada@example.com", "age": 36}),
        builders.page(message_id="m3"),
        builders.screen(message_id="m4"),
        builders.group(message_id="m5", traits={"plan": "pro"}),
        builders.alias(message_id="m6"),
    ]


def test_what_is_loaded_is_there_when_it_is_opened_again(place: Place) -> None:
    load(place.open(), *everything())
    place.close()
    again = place.open()
    assert rows(again, "select id, event, total, items, gift from main.order_completed") == [["m1", "order_completed", 12.5, 3, True]]
    for table, message_id in (
        ("tracks", "m1"),
        ("identifies", "m2"),
        ("pages", "m3"),
        ("screens", "m4"),
        ("groups", "m5"),
        ("aliases", "m6"),
    ):
        assert rows(again, f"select id from main.{table}") == [[message_id]]
    assert rows(again, "select id, email, age from main.users") == [["user-1", "ada@example.com", 36]]
    assert rows(again, "select id, plan from main.accounts") == [["account-1", "pro"]]
    assert again.positions == {StreamPartition("ENRICHED", 0): Position(1, 1)}
    assert again.counts() == {LOADED: 6}
    assert again.catalog["main"]["order_completed"]["total"] is ColumnType.DOUBLE


def test_every_value_comes_back_as_it_was(place: Place) -> None:
    warehouse = place.open()
    values = {
        "small": -(2**63),
        "large": 2**63 - 1,
        "fraction": 0.1,
        "tiny": 5e-324,
        "yes": True,
        "at": "2026-02-28T23:59:59.999999Z",
        "text": "Zürich, Δ, 日本, 🦆, tab\t, quote ', \" and \\ ",
        "empty": "",
        "seq": "a text, whatever columns of this name hold elsewhere",
        "list": [1, {"a": None}],
    }
    load(warehouse, builders.track("Everything", properties=values))
    (row,) = records(warehouse, "select * from main.everything")
    assert {name: row[name] for name in values if name not in ("at", "list")} == {
        name: value for name, value in values.items() if name not in ("at", "list")
    }
    assert row["at"].astimezone(UTC) == datetime(2026, 2, 28, 23, 59, 59, 999999, UTC)
    assert row["list"] == '[1,{"a":null}]'


def test_a_text_with_the_character_zero_breaks_no_load(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Odd", message_id="odd", properties={"text": "a\0b", "list": ["\0"]}))
    (row,) = records(warehouse, "select id, text from main.odd")
    assert row["id"] == "odd"
    assert row["text"] in ("a\0b", "a\ufffdb")  # an engine that cannot hold it says so in its docs


def test_a_try_leaves_nothing(place: Place) -> None:
    warehouse = place.open()
    done = warehouse.load(planned(warehouse, everything()), keep=False)
    assert sum(table.row_count for table in done) >= 8
    assert "order_completed" not in warehouse.catalog["main"]
    assert rows(warehouse, "select count(*) from main.tracks") == [[0]]
    assert (warehouse.positions, dict(warehouse.counts())) == ({}, {})
    load(warehouse, *everything())
    assert rows(warehouse, "select count(*) from main.order_completed") == [[1]]


def test_a_load_that_fails_at_its_last_table_leaves_nothing(place: Place) -> None:
    warehouse = place.open()
    good = planned(warehouse, everything())
    unknown_column = TableLoad("main", "discards", pa.record_batch({"nobody_knows_me": pa.array(["x"])}))
    with pytest.raises(Exception, match="nobody_knows_me"):
        warehouse.load(replace(good, tables=[*good.tables, unknown_column]))
    for table in ("tracks", "users", "accounts"):
        assert rows(warehouse, f"select count(*) from main.{table}") == [[0]]
    assert (warehouse.positions, dict(warehouse.counts())) == ({}, {})
    load(warehouse, *everything())
    assert rows(warehouse, "select count(*) from main.order_completed") == [[1]]


def test_a_load_of_events_whose_values_end_it_leaves_nothing(place: Place) -> None:
    """As a bug in a plan would: the rows are made while they are loaded."""
    warehouse = place.open()

    def tables() -> Iterator[TableLoad]:
        yield from planned(warehouse, everything()).tables
        raise ValueError("a plan that breaks")

    with pytest.raises(ValueError, match="a plan that breaks"):
        warehouse.load(replace(planned(warehouse, everything()), tables=tables()))
    assert rows(warehouse, "select count(*) from main.tracks") == [[0]]
    load(warehouse, *everything())
    assert rows(warehouse, "select count(*) from main.tracks") == [[1]]


def test_a_second_process_that_loads_the_same_changes_nothing(place: Place) -> None:
    if not place.shared:
        pytest.skip("one process at a time: a second one cannot open it")
    one, other = place.open(), place.open()
    mine, same = planned(one, everything()), planned(other, everything())
    one.load(mine)
    with pytest.raises(Unavailable):
        other.load(same)
    assert other.positions == one.positions
    assert rows(other, "select count(*) from main.tracks") == [[1]]
    assert other.counts() == {LOADED: 6}
    load(other, builders.track("Order Completed", message_id="m7", properties={"total": 1, "points": 2}))
    assert rows(one, "select id, points from main.order_completed order by id") == [["m1", None], ["m7", 2]]


def test_two_processes_that_add_columns_to_one_table_agree(place: Place) -> None:
    if not place.shared:
        pytest.skip("one process at a time: a second one cannot open it")
    one, other = place.open(), place.open()
    load(one, builders.track("Order Completed", properties={"total": 1}))
    mine = planned(one, [builders.track("Order Completed", properties={"code": 7})], partition=1)
    theirs = planned(other, [builders.track("Order Completed", properties={"code": "seven"})], partition=2)
    one.load(mine)
    with pytest.raises(Unavailable):
        other.load(theirs)
    load(other, builders.track("Order Completed", message_id="text", properties={"code": "seven"}), partition=2)
    assert other.catalog["main"]["order_completed"]["code"] is ColumnType.BIGINT
    assert rows(one, "select code from main.order_completed where id = 'text'") == [[None]]
    assert rows(one, "select column_name, column_value, reason from main.discards") == [["code", "seven", "type_conflict"]]


def test_a_load_that_alters_tables_sees_what_another_process_has_loaded_of_its_partition(place: Place) -> None:
    if not place.shared:
        pytest.skip("one process at a time: a second one cannot open it")
    one = place.open()
    load(one, builders.track("Seen"))
    other = place.open()
    theirs = planned(other, [builders.track("Seen", message_id="a", properties={"n": 1})])
    load(one, builders.track("Seen", message_id="a"))
    with pytest.raises(Unavailable):
        other.load(theirs)
    assert other.positions == one.positions
    assert rows(one, "select count(*) from main.seen where id = 'a'") == [[1]]


def test_columns_appear_and_widen_and_the_history_has_it(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Order Completed", message_id="a", properties={"total": 1}))
    load(warehouse, builders.track("Order Completed", message_id="b", properties={"total": 2.5, "coupon": "X"}))
    load(warehouse, builders.track("Order Completed", message_id="c", properties={"total": "many"}))
    assert rows(warehouse, "select id, total, coupon from main.order_completed order by id") == [
        ["a", 1, None],
        ["b", 2.5, "X"],
        ["c", None, None],
    ]
    assert rows(warehouse, "select message_id, column_value from main.discards") == [["c", "many"]]
    changes = [(one.table, one.column, one.change, one.type) for one in warehouse.schema_changes("main") if one.table == "order_completed"]
    assert changes == [
        ("order_completed", "", Change.TABLE_ADDED, ""),
        ("order_completed", "total", Change.COLUMN_ADDED, "BIGINT"),
        ("order_completed", "coupon", Change.COLUMN_ADDED, "VARCHAR"),
        ("order_completed", "total", Change.COLUMN_WIDENED, "DOUBLE"),
    ]
    (newest, *_) = warehouse.loads(1)
    assert (newest.stream, newest.events) == ("ENRICHED", 1)
    assert newest.rows >= 2
    assert newest.size > 0


def test_integers_of_any_size_become_doubles_and_stay_in_their_rows(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", message_id="a", properties={"n": 2**53 + 1}), builders.track("Seen", message_id="b"))
    load(warehouse, builders.track("Seen", message_id="c", properties={"n": 7}))
    load(warehouse, builders.track("Seen", message_id="d", properties={"n": 0.5}))
    load(warehouse, builders.track("Seen", message_id="e", properties={"n": 3}))
    found = {row["id"]: row["n"] for row in records(warehouse, "select id, n from main.seen")}
    assert found == {"a": float(2**53), "b": None, "c": 7.0, "d": 0.5, "e": 3.0}
    assert warehouse.catalog["main"]["seen"]["n"] is ColumnType.DOUBLE


def test_users_have_the_newest_value_of_each_trait(place: Place) -> None:
    warehouse = place.open()
    at = builders.EVENT_TIME
    load(warehouse, builders.identify(at=at, traits={"name": "Ada", "plan": "free", "city": "Paris"}))
    load(warehouse, builders.identify(at=at + DAY, traits={"plan": "pro", "city": None}))
    load(warehouse, builders.identify(at=at - DAY, traits={"plan": "trial", "phone": "1"}))
    assert rows(warehouse, "select name, plan, city, phone from main.users") == [["Ada", "pro", "Paris", "1"]]


def test_names_of_all_scripts_and_words_of_sql_are_names(place: Place) -> None:
    warehouse = place.open()
    properties = {"größe": "xl", "select": 1, 'Ein "Wort"': 2, "数量": 3, "1st": 4, "x" * 80: 5}
    load(warehouse, builders.track("Zahlung: erhalten!", properties=properties))
    (table,) = [name for name in warehouse.catalog["main"] if name.startswith("zahlung")]
    (row,) = records(warehouse, f"select * from main.{table}")
    assert [row["größe"], row["_select"], row["ein_wort"], row["数量"], row["_1st"]] == ["xl", 1, 2, 3, 4]


def test_names_that_engines_keep_for_themselves_are_columns_too(place: Place) -> None:
    """Of DuckDB, Postgres and ClickHouse; an engine that keeps one under another name says so in its docs."""
    names = [
        "rowid",
        "oid",
        "ctid",
        "xmin",
        "tableoid",
        "_row_exists",
        "_block_number",
        "_block_offset",
        "_part",
        "_part_offset",
        "_distance",
    ]
    warehouse = place.open()
    load(warehouse, builders.track("Odd", message_id="a", properties={names[0]: 1}))
    load(warehouse, builders.track("Odd", message_id="b", properties=dict.fromkeys(names, 1)))
    load(
        warehouse,
        builders.track("Odder", message_id="c", properties=dict.fromkeys(names, 1)),
        builders.identify(traits=dict.fromkeys(names, 1)),
    )
    for table in ("odd", "odder", "users"):
        columns = warehouse.catalog["main"][table]
        assert [column.strip("_") for column in columns if column.strip("_") in {name.strip("_") for name in names}] == [
            name.strip("_") for name in names
        ]
    (row,) = records(warehouse, "select * from main.odder")
    assert sum(value == 1 for value in row.values()) >= len(names)


def test_partitions_have_positions_of_their_own(place: Place) -> None:
    warehouse = place.open()
    for partition in (0, 1, 0, 2):
        load(warehouse, builders.track(), partition=partition)
    expected = {StreamPartition("ENRICHED", number): Position(last, last) for number, last in ((0, 2), (1, 1), (2, 1))}
    assert warehouse.positions == expected
    place.close()
    assert place.open().positions == expected


def test_documents_stay(place: Place) -> None:
    warehouse = place.open()
    document = Document("acme", "analytics", ("ads", "product"), "acme", 1, ("partner-feed",))
    warehouse.put_document(document)
    warehouse.put_document(replace(document, purposes=(), version=2))
    place.close()
    assert place.open().documents() == [replace(document, purposes=(), version=2)]


def test_existing_values_are_found(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, *everything())
    assert warehouse.existing("main", "tracks", "id", ["m1", "m2", "it's not there"]) == {"m1"}
    assert warehouse.existing("main", "tracks", "id", []) == set()


def test_a_cleared_schema_keeps_what_events_did_not_bring(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, *everything())
    load_graph(warehouse, graph_changed(canonicals=[("p1", "p1")]))
    at = StreamPartition("REBUILD", 0)
    clears = [("main", table) for table in filled_by_events(warehouse.catalog["main"])]
    warehouse.load(Load("ENRICHED", 0, (), {at: Position(1, 0)}, {}, clears=clears))
    for table in ("tracks", "order_completed", "users", "accounts", "pages"):
        assert rows(warehouse, f"select count(*) from main.{table}") == [[0]]
    assert rows(warehouse, "select count(*) from main.id_graph_updates") == [[1]]
    assert warehouse.positions[at] == Position(1, 0)


def test_the_views_say_whose_events_are_whose_after_a_merge_and_a_split(place: Place) -> None:
    warehouse = place.open()
    seen = [("m1", "anna", "p1"), ("m2", "annas-phone", "p2"), ("m3", "bob", "p3")]
    events = [builders.track("Seen", message_id=message_id, anonymous_id=who) for message_id, who, _ in seen]
    for event, (_, _, profile) in zip(events, seen, strict=True):
        event.identity.profile_id = profile
    load(warehouse, *events)
    given = [("anonymous_id", who, profile) for _, who, profile in seen]
    load_graph(warehouse, graph_changed(canonicals=[("p1", "p1"), ("p2", "p2"), ("p3", "p3")], created=given))
    load_graph(warehouse, graph_changed(canonicals=[("p2", "p1")], traits=[("p1", "plan", b'"pro"')]))
    by_person = "select id, canonical_profile_id from main.events_by_person order by id"
    assert rows(warehouse, by_person) == [["m1", "p1"], ["m2", "p1"], ["m3", "p3"]]
    assert rows(warehouse, "select profile_id, canonical_profile_id from main.profile_merges order by 1") == [
        ["p1", "p1"],
        ["p2", "p1"],
        ["p3", "p3"],
    ]
    assert rows(warehouse, "select external_id_value, canonical_profile_id from main.user_identifiers order by 1") == [
        ["anna", "p1"],
        ["annas-phone", "p1"],
        ["bob", "p3"],
    ]
    assert rows(warehouse, "select canonical_profile_id, name, value from main.user_traits") == [["p1", "plan", '"pro"']]
    split = graph_changed(
        canonicals=[("p4", "p4")],
        removed=[("anonymous_id", "annas-phone", "p2")],
        created=[("anonymous_id", "annas-phone", "p4")],
        traits=[("p1", "plan", b"")],
    )
    load_graph(warehouse, split)
    assert rows(warehouse, by_person) == [["m1", "p1"], ["m2", "p4"], ["m3", "p3"]]
    assert rows(warehouse, "select count(*) from main.user_traits") == [[0]]


def test_a_storm_of_values_that_contradict_each_other_loses_none(place: Place) -> None:
    warehouse = place.open()
    values = [1, "two", 3.5, True, [4], {"five": 5}, "6", None, -(2**70), "2026-01-01T00:00:00Z"]
    sent = 0
    for turn in range(6):
        order = values[turn:] + values[:turn]
        load(
            warehouse,
            *(builders.track("Storm", message_id=f"m{turn}{place}", properties={"a": one, "b": one}) for place, one in enumerate(order)),
        )
        sent += len(order)
    assert rows(warehouse, "select count(*), count(distinct id) from main.storm") == [[sent, sent]]
    given = sum(one is not None and not isinstance(one, dict) for one in values) * 6
    for column in ("a", "b"):
        (kept,) = rows(warehouse, f"select count({column}) from main.storm")[0]
        (aside,) = rows(warehouse, f"select count(*) from main.discards where table_name = 'storm' and column_name = '{column}'")[0]
        assert kept + aside == given
        assert kept > 0
    assert rows(warehouse, "select count(*) from main.storm where a_five = 5") == [[6]]


def test_clocks_that_are_a_day_off_change_nothing_but_the_times(place: Place) -> None:
    warehouse = place.open()
    now = builders.EVENT_TIME
    for message_id, at in (("behind", now - DAY), ("right", now), ("ahead", now + DAY)):
        clock = {field: builders.timestamp(at) for field in ("original_time", "sent_time", "event_time")}
        load(warehouse, builders.track("Seen", message_id=message_id, received_time=builders.timestamp(now), **clock))
        load(warehouse, builders.identify(traits={"who": message_id}, received_time=builders.timestamp(now), **clock))
    assert rows(warehouse, "select id from main.seen s order by s.timestamp") == [["behind"], ["right"], ["ahead"]]
    assert rows(warehouse, "select count(distinct received_at) from main.seen") == [[1]]
    assert rows(warehouse, "select who from main.users") == [["ahead"]]
    load(warehouse, builders.identify(traits={"who": "right again", "late": "x"}, at=now))
    assert rows(warehouse, "select who, late from main.users") == [["ahead", "x"]]
