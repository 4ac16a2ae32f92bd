"""From events to rows: Segment's published example, new columns, conflicts, collisions, limits."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cdi.event.v1.event_pb2 import ClientSignals, Event, EventBatch, IdentityResult
from cdi_kernel.faults import Rejected
from cdi_testing import builders
from cdi_warehouse_loader.domain.batches import Batch, fresh
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.event_load import plan_events
from cdi_warehouse_loader.domain.event_view import read_batch
from cdi_warehouse_loader.domain.layout import ENRICHMENT_COLUMNS, MAX_COLUMNS, STARTING_TABLES, TRACK_TABLE_COLUMNS
from cdi_warehouse_loader.domain.load import Position, StreamPartition, TableLoad, Target, Targets
from cdi_warehouse_loader.domain.plan import plan_schema
from cdi_warehouse_loader.domain.planned_types import NO_RULES, ColumnRules
from cdi_warehouse_loader.domain.rows import event_columns, granted_purposes

Tables = dict[str, dict[str, Any]]


class Schema:
    """Tables as plain lists, so that a plan can be looked at."""

    def __init__(self) -> None:
        self.columns: Tables = {table: dict(columns) for table, columns in STARTING_TABLES.items()}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.seq = 0

    def load(self, *events: Event, rules: ColumnRules = NO_RULES) -> Sequence[TableLoad]:
        read = read_batch(EventBatch(events=events).SerializeToString()).events
        items = [(event, 0, self.seq + place) for place, event in enumerate(read)]
        self.seq += len(events)
        columns = event_columns(items, granted_purposes(read), 1_800_000_000_000_000)
        loads = list(plan_schema("main", self.columns, columns, range(len(items)), rules))
        for load in loads:
            self.columns.setdefault(load.table, {}).update(load.added)
            self.columns[load.table].update(dict.fromkeys(load.widened, "DOUBLE"))
            if load.rows is not None:
                assert set(load.rows.schema.names) <= self.columns[load.table].keys()
                self.rows.setdefault(load.table, []).extend(load.rows.to_pylist())
        return loads

    def discards(self) -> list[tuple[str, ...]]:
        return [
            (row["message_id"], row["table_name"], row["column_name"], row["column_value"], row["reason"])
            for row in self.rows.get("discards", [])
        ]


def shown(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def test_segments_example_of_identify_and_track() -> None:
    schema = Schema()
    context = {"library": {"name": "analytics.js", "version": "2.1.0"}, "page": {"path": "/academy/"}, "ip": "108.0.78.21"}
    schema.load(
        builders.identify(
            message_id="m1", user_id="97980cfea0067", traits={"name": "Peter Gibbons", "email": "peter@example.com", "logins": 5}
        ),
        builders.track(
            "Course Clicked", message_id="m2", user_id="AiUGstSDIg", properties={"title": "Intro", "courseId": 7}, context=context
        ),
    )
    identify, user = schema.rows["identifies"][0], schema.rows["users"][0]
    assert shown(identify, "id", "user_id", "name", "email", "logins") == {
        "id": "m1",
        "user_id": "97980cfea0067",
        "name": "Peter Gibbons",
        "email": "peter@example.com",
        "logins": 5,
    }
    assert shown(user, "id", "name", "logins") == {"id": "97980cfea0067", "name": "Peter Gibbons", "logins": 5}
    track, clicked = schema.rows["tracks"][0], schema.rows["course_clicked"][0]
    for row in (track, clicked):
        assert shown(row, "id", "event", "event_text", "context_library_name", "context_page_path", "context_ip") == {
            "id": "m2",
            "event": "course_clicked",
            "event_text": "Course Clicked",
            "context_library_name": "analytics.js",
            "context_page_path": "/academy/",
            "context_ip": "108.0.78.21",
        }
    assert shown(clicked, "title", "course_id") == {"title": "Intro", "course_id": 7}
    assert "title" not in track
    assert "context_ip" not in schema.columns["identifies"]


@pytest.mark.parametrize("count", [20, 200])  # values of the context are few among so many
def test_rows_and_columns_belong_together_whatever_the_shapes(count: int) -> None:
    schema = Schema()
    events = [
        builders.track(
            "Seen", message_id=f"m{n}", properties={"n": n} | ({"odd": n} if n % 2 else {"deep": {"n": n}}), context={"v": n % 3}
        )
        for n in range(count)
    ]
    schema.load(*events)
    assert len(schema.rows["seen"]) == count
    for row in schema.rows["seen"]:
        number = row["n"]
        assert row["id"] == f"m{number}"
        assert row["context_v"] == number % 3
        assert (row["odd"], row["deep_n"]) == ((number, None) if number % 2 else (None, number))


def test_a_conflict_leaves_null_and_is_kept_in_discards() -> None:
    schema = Schema()
    schema.load(builders.track("Paid", properties={"amount": 5}))
    schema.load(builders.track("Paid", message_id="m2", properties={"amount": "a lot"}))
    assert schema.rows["paid"][1]["amount"] is None
    assert schema.discards() == [("m2", "paid", "amount", "a lot", "type_conflict")]


def test_two_keys_of_one_column_keep_both_values() -> None:
    schema = Schema()
    schema.load(builders.track("Paid", message_id="m1", properties={"orderId": "a", "order_id": "b"}))
    assert schema.rows["paid"][0]["order_id"] == "a"
    assert schema.discards() == [("m1", "paid", "order_id", "b", "name_collision")]


def test_a_context_column_widens_in_all_tables_at_once() -> None:
    schema = Schema()
    schema.load(builders.track("One", context={"zoom": 1}), builders.page(context={"zoom": 1}))
    loads = schema.load(builders.track("One", context={"zoom": 1.5}))
    widened = {load.table for load in loads if "context_zoom" in load.widened}
    assert widened == {"tracks", "one", "pages"}


def test_context_conflicts_name_every_event_that_had_the_value() -> None:
    schema = Schema()
    schema.load(builders.page(context={"zoom": 1}))
    schema.load(*(builders.page(message_id=f"m{n}", context={"zoom": "far"}) for n in range(2)))
    assert {(found[0], found[3]) for found in schema.discards()} == {("m0", "far"), ("m1", "far")}


def resolved(message_id: str, traits: bytes, **fields: Any) -> Event:
    """A page whose person has chosen traits."""
    return builders.page(message_id=message_id, identity=IdentityResult(profile_id="p", traits=traits), **fields)


def test_the_persons_chosen_traits_are_columns_from_the_first_value_on() -> None:
    schema = Schema()
    schema.load(builders.page(message_id="m0", identity=IdentityResult(profile_id="p")))
    assert not [name for name in schema.columns["pages"] if name.startswith("context_profile")]
    rich = b'{"ordersToDate":3,"lifetime_value":9.5,"tags":["a"],"address":{"city":"Rome"}}'
    schema.load(resolved("m1", rich), resolved("m2", b'{"ordersToDate":4}'), resolved("m3", b""), builders.track("Seen", message_id="m4"))
    found = {row["id"]: shown(row, "profile_id", "context_profile_orders_to_date") for row in schema.rows["pages"]}
    assert found == {
        name: {"profile_id": "p", "context_profile_orders_to_date": orders} for name, orders in zip(found, (None, 3, 4, None), strict=True)
    }
    row = schema.rows["pages"][1]
    names = ("context_profile_lifetime_value", "context_profile_tags", "context_profile_address_city")
    assert shown(row, *names) == dict(zip(names, (9.5, '["a"]', "Rome"), strict=True))
    assert "context_profile_orders_to_date" not in schema.columns["seen"]


def test_a_clients_own_profile_in_the_context_gives_way_and_is_kept() -> None:
    schema = Schema()
    own = {"profile": {"orders": 99, "theme": "dark"}, "ip": "::1"}
    schema.load(resolved("m1", b'{"orders":3}', context=own), resolved("m2", b"", context=own))
    first, second = schema.rows["pages"]
    names = ("context_profile_orders", "context_profile_theme", "context_ip")
    assert shown(first, *names) == dict(zip(names, (3, "dark", "::1"), strict=True))
    assert shown(second, *names) == dict(zip(names, (99, "dark", "::1"), strict=True))
    assert schema.discards() == [("m1", "pages", "context_profile_orders", "99", "name_collision")]


def test_more_columns_than_a_table_may_have_go_to_unmapped() -> None:
    schema = Schema()
    schema.load(builders.track("Wide", properties={f"p{n}": n for n in range(3_000)}))
    assert len(schema.columns["wide"]) == MAX_COLUMNS
    row = schema.rows["wide"][0]
    rest = json.loads(row["_unmapped"])
    in_columns = {name: value for name, value in row.items() if name[0] == "p" and name[1:].isdigit()}
    assert in_columns | rest == {f"p{n}": n for n in range(3_000)}
    schema.load(builders.track("Wide", properties={"late": 1}, context={"late": "x"}))
    assert json.loads(schema.rows["wide"][1]["_unmapped"]) == {"late": 1}
    assert [found[1:] for found in schema.discards()] == [("wide", "context_late", "x", "too_many_columns")]


def test_an_event_named_like_a_fixed_table_stays_out_of_it() -> None:
    schema = Schema()
    schema.load(builders.track("Users", properties={"id": "x"}), builders.track("tracks"), builders.track("Discards"))
    assert "users" not in schema.rows
    assert "discards" not in schema.rows
    assert len(schema.rows["tracks"]) == 3
    assert schema.rows["event_users"][0]["_id"] == "x"


def test_users_hold_the_newest_traits() -> None:
    schema = Schema()
    later = builders.EVENT_TIME.replace(hour=13)
    schema.load(
        builders.identify(user_id="u", traits={"plan": "pro", "email": None}, at=later),
        builders.identify(user_id="u", traits={"plan": "free", "email": "u@example.com"}),
        builders.identify(anonymous_id="nobody", traits={"plan": "free"}),
    )
    assert [shown(row, "id", "plan", "email") for row in schema.rows["users"]] == [{"id": "u", "plan": "pro", "email": "u@example.com"}]
    assert len(schema.rows["identifies"]) == 3


def test_enrichments_and_consent_are_columns() -> None:
    event = builders.track("Seen")
    event.consent.granted_purposes.extend(["ads", "stats"])
    event.identity.profile_id = "p1"
    event.enrichments.geo.country = "DE"
    event.enrichments.user_agent.browser = "Firefox"
    schema = Schema()
    schema.load(event, builders.track("Seen"))
    first, second = schema.rows["seen"]
    names = ("profile_id", "consent_purposes", "geo_country", "ua_browser", "ua_bot")
    assert shown(first, *names) == dict(zip(names, ("p1", '["ads","stats"]', "DE", "Firefox", False), strict=True))
    assert shown(second, *names) == dict(zip(names, (None, "[]", None, None, None), strict=True))


SIGNALS = ("context_do_not_track", "context_global_privacy_control", "context_bot")


@pytest.mark.parametrize("count", [1, 50])  # as values and as a dictionary
def test_signals_are_columns_where_something_was_said(count: int) -> None:
    schema = Schema()
    for _ in range(count):
        schema.load(
            builders.track("Asked", signals=ClientSignals(global_privacy_control=True)),
            builders.track("Asked", signals=ClientSignals(do_not_track=True, bot=True), context={"zoom": 1}),
            builders.track("Asked", signals=ClientSignals()),
            *(builders.page() for _ in range(count)),
        )
    for table in ("tracks", "asked"):
        assert [tuple(row.get(name) for name in SIGNALS) for row in schema.rows[table]] == [
            (None, True, None), (True, None, True), (None, None, None),
        ] * count  # fmt: skip
        assert [row["context_zoom"] for row in schema.rows[table]] == [None, 1, None] * count
        assert {schema.columns[table][name] for name in SIGNALS} == {"BOOLEAN"}
    assert not schema.columns["pages"].keys() & set(SIGNALS)


def test_a_clients_own_bot_stands_beside_the_signal() -> None:
    schema = Schema()
    said = {"bot": "Marvin", "do": {"not": {"track": 3}}, "globalPrivacyControl": [1]}
    schema.load(builders.track("Seen", context=said, signals=ClientSignals(bot=True)), builders.track("Seen", context=said))
    theirs = {"context__bot": "Marvin", "context__do_not_track": 3, "context__global_privacy_control": "[1]"}
    for row, bot in zip(schema.rows["seen"], (True, None), strict=True):
        assert shown(row, *theirs) == theirs
        assert row["context_bot"] is bot
    assert not schema.discards()


def test_a_column_that_clients_filled_before_takes_the_signals_that_fit() -> None:
    schema = Schema()
    schema.columns["tracks"] |= {"context_bot": ColumnType.TEXT, "context_do_not_track": ColumnType.BIGINT}
    schema.load(builders.track("Seen", message_id="m1", signals=ClientSignals(bot=True, do_not_track=True)))
    assert shown(schema.rows["tracks"][0], *SIGNALS) == dict(zip(SIGNALS, (None, None, "true"), strict=True))
    assert ("m1", "tracks", "context_do_not_track", "true", "type_conflict") in schema.discards()


def test_an_unknown_type_is_a_fault_of_the_event() -> None:
    with pytest.raises(Rejected, match="unknown_event_type"):
        Schema().load(builders.event(type=99))


def test_what_was_loaded_before_is_not_fresh() -> None:
    at = StreamPartition("ENRICHED", 1)
    batches = [Batch(1, sequence, source, ("event",)) for sequence, source in [(5, 50), (6, 51), (7, 51), (8, 50), (9, 52)]]
    new = fresh("ENRICHED", batches, {at: Position(5, 50)})
    assert [batch.sequence for batch in new.batches] == [6, 9]
    assert new.positions == {at: Position(9, 52)}
    assert not fresh("ENRICHED", batches, new.positions).batches


def test_rows_of_mixed_events_keep_their_own_columns_whatever_their_order_in_the_batch() -> None:
    schema = Schema()
    for frozen, first in ((False, 0), (True, 60)):
        events = []
        for number in range(first, first + 60):
            mid, user = f"m{number}", f"u{number}"
            shape = {"n": number} if number % 2 else {"m": number, "n": number}
            if number % 5 == 4:
                events.append(builders.identify(message_id=mid, user_id=user, traits=shape))
            else:
                name = f"Kind {number % 5}" if number % 5 < 3 else f"Rare {frozen}"
                events.append(builders.track(name, message_id=mid, user_id=user, properties=shape, context={"locale": mid}))
        schema.load(*events, rules=ColumnRules(frozen=frozen))
    for table, kinds in (("tracks", range(4)), ("kind_0", [0]), ("kind_1", [1]), ("kind_2", [2]), ("identifies", [4])):
        rows = {row["id"]: row for row in schema.rows[table]}
        assert set(rows) == {f"m{number}" for number in range(120) if number % 5 in kinds}
        for mid, row in rows.items():
            assert row["user_id"] == f"u{mid[1:]}"
            assert table == "identifies" or row["context_locale"] == mid
            assert table == "tracks" or row["n"] == int(mid[1:])
    assert len(schema.rows["rare_false"]) == 12


def test_a_frozen_source_adds_nothing_and_loses_nothing() -> None:
    schema = Schema()
    schema.load(builders.track("Bought", message_id="a", properties={"price": 1}, context={"locale": "de"}))
    before = {table: dict(columns) for table, columns in schema.columns.items()}
    loads = schema.load(
        builders.track("Bought", message_id="b", properties={"price": 2, "colour": "red"}, context={"locale": "fr", "odd": True}),
        builders.track("Bought", message_id="c", properties={"price": 2.5}),
        builders.track("Returned", message_id="d", properties={"why": "small"}),
        builders.identify(message_id="e", traits={"shoe": 42}),
        rules=ColumnRules(frozen=True),
    )
    assert not any(load.added.keys() - ENRICHMENT_COLUMNS.keys() or load.widened for load in loads)
    assert {table: dict(columns) for table, columns in schema.columns.items()} == before
    assert [shown(row, "id", "price", "context_locale") for row in schema.rows["bought"][1:]] == [
        {"id": "b", "price": 2, "context_locale": "fr"},
        {"id": "c", "price": None, "context_locale": None},
    ]
    assert [row["id"] for row in schema.rows["tracks"]] == ["a", "b", "c", "d"]
    assert sorted(schema.discards()) == sorted(
        [
            ("b", "bought", "colour", "red", "schema_frozen"),
            ("b", "bought", "context_odd", "true", "schema_frozen"),
            ("b", "tracks", "context_odd", "true", "schema_frozen"),
            ("c", "bought", "price", "2.5", "type_conflict"),
            ("d", "returned", "", '{"why": "small"}', "schema_frozen"),
            ("e", "identifies", "shoe", "42", "schema_frozen"),
            ("e", "users", "shoe", "42", "schema_frozen"),
        ]
    )


def test_only_the_frozen_source_of_a_warehouse_adds_nothing() -> None:
    events = [
        builders.track("Bought", source_id="web", properties={"a": 1}),
        builders.track("Bought", source_id="feed", properties={"b": 1}),
    ]
    read = read_batch(EventBatch(events=events).SerializeToString()).events
    target = Target("main", "main", frozenset(), frozen_sources=frozenset({"feed"}))
    load = plan_events([(event, 0, place) for place, event in enumerate(read)], (), {}, Targets(others=[target]), 1)(
        {"main": {**STARTING_TABLES, "bought": TRACK_TABLE_COLUMNS}}
    )
    tables = list(load.tables)
    assert {name for table in tables for name in table.added} == {"a"}
    assert sum(table.rows.num_rows for table in tables if table.table == "bought") == 2
    assert [table.rows.to_pylist()[0]["column_name"] for table in tables if table.table == "discards"] == ["b"]
