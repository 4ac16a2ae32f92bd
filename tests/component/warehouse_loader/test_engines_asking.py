"""What every engine has to do with questions: read, within limits, only what purposes allow."""

import time
from dataclasses import replace

import pyarrow as pa
import pytest

from cdi_kernel.faults import InvalidArgument, TooLarge
from cdi_testing import builders
from cdi_warehouse_loader.domain.archive import archive_load
from cdi_warehouse_loader.domain.load import Load
from cdi_warehouse_loader.ports import QueryLimits, Question

from .engines import LIMITS, Place, load, planned_items, rows, shown


def test_queries_read_within_limits_and_write_nothing(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, *(builders.track("Seen", message_id=f"m{number:02}") for number in range(30)))
    answer = warehouse.query(Question("select id from main.seen order by id", replace(LIMITS, rows=10)))
    assert ([name.lower() for name, _ in answer.columns], len(answer.values), answer.truncated) == (["id"], 10, True)
    batches: list[pa.RecordBatch] = []
    assert warehouse.stream(Question("select id from main.seen order by id", replace(LIMITS, rows=10)), batches.append)
    assert [one for batch in batches for one in batch.column(0).to_pylist()] == [f"m{number:02}" for number in range(10)]
    assert rows(warehouse, "select min(event_seq), count(*) from main.seen where id = 'nobody'") == [[None, 0]]
    nothing: list[pa.RecordBatch] = []
    assert not warehouse.stream(Question("select id from main.seen where false", LIMITS), nothing.append)
    assert [[name.lower() for name in batch.schema.names] for batch in nothing] == [["id"]]
    for sql in (
        "delete from main.seen",
        "insert into main.seen (id) values ('x')",
        "create table main.mine (a integer)",
        "drop table main.seen",
        "select 1; select 2",
        "select nonsense from main.seen",
        "not sql at all",
        "",
    ):
        with pytest.raises(InvalidArgument):
            warehouse.query(Question(sql, LIMITS))
    with pytest.raises(TooLarge):
        warehouse.query(Question("select id, id, id, id from main.seen", replace(LIMITS, size=500)))
    assert rows(warehouse, "select count(*) from main.seen") == [[30]]


def test_a_query_that_takes_too_long_is_ended_and_the_next_one_is_answered(place: Place) -> None:
    if place.endless:
        pytest.skip(place.endless)
    warehouse = place.open()
    load(warehouse, *(builders.track("Seen") for _ in range(100)))
    long = "select count(*) from " + ", ".join(f"main.seen s{number}" for number in range(8)) + " where s0.id < s1.id and s2.id < s3.id"
    started = time.monotonic()
    with pytest.raises(TooLarge):
        warehouse.query(Question(long, QueryLimits(10, 1_000, 0.3)))
    assert time.monotonic() - started < 30
    assert rows(warehouse, "select count(*) from main.seen") == [[100]]


def test_a_question_with_purposes_sees_only_what_they_allow(place: Place) -> None:
    warehouse = place.open(place.asking() if place.asking else None)
    both, one, none = (
        builders.track("Seen", message_id="both"),
        builders.track("Seen", message_id="one"),
        builders.track("Seen", message_id="none"),
    )
    both.consent.granted_purposes.extend(["ads", "product"])
    one.consent.granted_purposes.append("ads 2")
    load(warehouse, both, one, none)
    asked = {"purposes": frozenset({"ads"})}
    if place.asking is None:
        with pytest.raises(InvalidArgument):
            rows(warehouse, "select id from main.seen", **asked)
        return
    assert rows(warehouse, "select id from main.seen", **asked) == [["both"]]
    assert rows(warehouse, "select (select count(*) from main.tracks) + count(*) from main.seen s", **asked) == [[2]]
    assert rows(warehouse, "select id from main.seen", purposes=frozenset({"ads", "product"})) == [["both"]]
    assert rows(warehouse, "select id from main.seen", purposes=frozenset({"nobody's"})) == []
    assert len(rows(warehouse, "select id from main.seen")) == 3
    load(warehouse, builders.identify(user_id="known", traits={"name": "shown to nobody"}))
    for sql in (
        "select id from main.users",
        "select id from users",
        "select name from main.users",
        "select * from _cdi.progress",
        "select id from main.identifies",
        "select canonical_profile_id from main.profile_merges",
        "select id from main.events_by_person where id <> 'both'",
        "select set_config('role', 'none', true), id from main.users",
        "select id from warehouse.seen",
        "select id from WAREHOUSE.users",
        "with all_of_it as (select id from warehouse.seen) select * from all_of_it",
        "select (select min(id) from warehouse.seen)",
        "select id from warehouse.main.seen",
        "summarize warehouse.seen",
        "select * from (summarize seen)",
        "select * from query_table('warehouse.main.seen')",
        "select id from merge('main', '^(_users|users|seen)$')",
        "select s.id from main.seen s join merge('main', '^(_users|users)$') u on u.id <> s.id where s.id = 'both'",
        "select name from main._users",
        "select id from main.users as seen",
        "select 1 where 'known' in (select user_id from main.identifies)",
        "select 1 where ('main', 'users') in system.tables",
        "select name from system.tables",
        "select t.name from main.seen s, main.tracks k, system.tables t",
    ):
        assert not shown(warehouse, sql, **asked), sql
        assert not shown(warehouse, sql, limits=replace(LIMITS, rows=1), **asked), sql
    archived = archive_load(planned_items(both, one), warehouse.catalog.get("cdi_archive", {}))
    warehouse.ensure_tables("cdi_archive")
    warehouse.load(Load("ENRICHED", 2, [archived], {}, {}))
    assert rows(warehouse, "select id from main.seen", **asked) == [["both"]]
    assert not shown(warehouse, "select id from cdi_archive.events", **asked)
    assert len(rows(warehouse, "select id from cdi_archive.events")) == 2
