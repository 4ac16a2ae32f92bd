"""What every engine has to do when people are erased."""

import json
from datetime import timedelta

import pytest

from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_kernel.faults import Unavailable
from cdi_privacy import digest_of
from cdi_testing import builders
from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Erasure, PersonId, Tombstone
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.domain.side_rows import rejected_rows

from .conftest import graph_changed
from .engines import NOW_US, Place, load, load_graph, planned, rows

DAY = timedelta(days=1)


def test_what_another_process_has_erased_does_not_come_back(place: Place) -> None:
    if not place.shared:
        pytest.skip("one process at a time: a second one cannot open it")
    one = place.open()
    load(one, builders.track("Seen", user_id="gone"))
    other = place.open()
    load(other, builders.track("Seen"), partition=1)
    planned_before = planned(other, [builders.track("Seen", user_id="gone")], partition=1)
    one.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    with pytest.raises(Unavailable):
        other.load(planned_before)
    assert other.newest_erasure_us == NOW_US
    digest = digest_of(builders.WORKSPACE, "user_id", "gone")
    assert other.tombstones([digest, b"nobody"]) == {digest: Tombstone(NOW_US, NOW_US)}
    load(other, builders.track("Seen"), partition=1)
    assert rows(one, "select count(*) from main.seen where user_id = 'gone'") == [[0]]


def test_erased_people_are_nowhere_and_leave_tombstones(place: Place) -> None:
    warehouse = place.open()
    token = "planted-7f3a"
    at = builders.EVENT_TIME
    events = [
        builders.track("Order Completed", message_id="hers", user_id=token, at=at, properties={"total": 1, "note": token}),
        builders.identify(user_id=token, at=at, traits={"email": f"{token}@example.com"}),
        builders.track("Order Completed", message_id="later", user_id=token, at=at + DAY),
        builders.track("Order Completed", message_id="bobs", user_id="bob", at=at),
    ]
    load(warehouse, *events)
    load(warehouse, builders.track("Order Completed", message_id="odd", user_id=token, at=at, properties={"total": f"{token} euros"}))
    load_graph(warehouse, graph_changed(canonicals=[("p1", "p1")], created=[("email", f"{token}@example.com", "p1")]))
    held: dict[str, int] = {}
    workspace = builders.WORKSPACE
    ids = [
        PersonId(workspace, "user_id", token),
        PersonId(workspace, "email", f"{token.upper()}@example.com"),
        PersonId(workspace, PROFILE_ID, "p1"),
    ]
    erasure = Erasure(ids, round((at + DAY / 2).timestamp() * 1_000_000))
    warehouse.holdings(erasure, lambda table, found: held.update({table: held.get(table, 0) + len(found)}))
    assert held["main.tracks"] == 2
    assert held["main.users"] == 1
    erased = warehouse.erase([erasure], NOW_US)
    counts = erased.counts[0]
    assert not erased.more
    assert (counts["main.order_completed"], counts["main.identifies"], counts["main.users"], counts["main.discards"]) == (2, 1, 1, 1)
    assert rows(warehouse, "select id from main.order_completed order by id") == [["bobs"], ["later"]]
    assert rows(warehouse, "select count(*) from main.external_id_mapping_updates") == [[0]]
    assert warehouse.newest_erasure_us == NOW_US
    assert warehouse.oldest_unrewritten_us() == NOW_US
    assert not any(warehouse.erase([erasure], NOW_US + 1).counts[0].values())


def test_each_erasure_counts_its_rows_and_rejected_events_are_found_by_their_payload(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", message_id="both", user_id="ada", anonymous_id="phone"))
    load(warehouse, builders.track("Seen", message_id="adas", user_id="ada", anonymous_id="tablet"))
    payloads = {"hers": b'{"userId": "ada"}', "nobodys": b'{"userId": "bob"}', "broken": b"ada \xff"}
    at = builders.timestamp(builders.EVENT_TIME)
    rejected = [
        RejectedEvent(rejection_id=one, workspace_id=builders.WORKSPACE, payload=text, received_time=at) for one, text in payloads.items()
    ]
    rows_of_rejected = TableLoad("main", "rejected_events", rejected_rows(rejected, NOW_US))
    warehouse.load(Load("REJECTED", 3, [rows_of_rejected], {StreamPartition("REJECTED", 0): Position(1, 0)}, {}))
    erasures = [Erasure([PersonId(builders.WORKSPACE, *one)], NOW_US) for one in (("user_id", "ada"), ("anonymous_id", "phone"))]
    held: list[bytes] = []
    warehouse.holdings(erasures[0], lambda table, found: held.extend(found if table == "main.rejected_events" else ()))
    assert sorted(json.loads(row)["rejection_id"] for row in held) == ["broken", "hers"]
    hers, phones = warehouse.erase(erasures, NOW_US).counts
    assert {table: rows for table, rows in hers.items() if rows} == {"main.tracks": 2, "main.seen": 2, "main.rejected_events": 2}
    assert {table: rows for table, rows in phones.items() if rows} == {"main.tracks": 1, "main.seen": 1}
    assert rows(warehouse, "select rejection_id from main.rejected_events order by 1") == [["nobodys"]]


def test_after_rewriting_no_byte_is_left_of_the_erased(place: Place) -> None:
    if place.stored is None:
        pytest.skip("the vendor stores it, where nobody can look; that its tables keep no past is tested by itself")
    warehouse = place.open()
    token = "planted-e0b91c55d2"
    load(warehouse, *(builders.track("Seen", user_id=f"other-{number}", properties={"note": "kept"}) for number in range(50)))
    load(
        warehouse,
        builders.track("Seen", user_id="gone", properties={"note": token}),
        builders.identify(user_id="gone", traits={"name": token}),
    )
    erasure = Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)
    warehouse.erase([erasure], NOW_US)
    place.rewrite()
    assert token.encode() not in place.stored()
    again = place.open()
    assert rows(again, "select count(*) from main.seen") == [[50]]
    assert again.newest_erasure_us == NOW_US
    assert again.oldest_unrewritten_us() == 0
