"""What only a warehouse in Snowflake can meet: its SQL, sessions that are gone in the middle, locks that are lost, columns half widened."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

pytest.importorskip("adbc_driver_snowflake", reason="no Snowflake here: pip install 'cdi-warehouse-loader[snowflake-test]'")

from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.load import Position, StreamPartition
from cdi_warehouse_loader.ports import Question
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.addresses import addresses
from cdi_warehouse_loader.warehouses.snowflake.session import Session

from .engines import LIMITS, LOADED, NOW_US, Place, load, planned, rows, snowflake

AT = StreamPartition("ENRICHED", 0)
Once = Callable[[str, str], None]


@pytest.fixture
def place(snowflake_port: int) -> Iterator[Place]:
    made = snowflake(snowflake_port)
    yield made
    made.close()


@pytest.fixture
def once(snowflake_port: int) -> Once:
    """Has something happen at the next statement with a text; see ``snowflake_server``."""

    def tell(what: str, text: str) -> None:
        body = json.dumps({"what": what, "text": text}).encode()
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{snowflake_port}/test/once", body), timeout=10).close()

    return tell


def test_names_are_in_upper_case_as_far_as_that_can_be_undone() -> None:
    assert sql.place("main", "order_completed") == '"MAIN"."ORDER_COMPLETED"'
    assert sql.quoted("größe") == '"GRößE"'
    for name in ("order_completed", "größe", "数量", "_1st", "ﬁ", "ı", "ǆ"):
        assert sql.lower(sql.upper(name)) == name


def test_every_table_is_transient_and_remembers_no_past() -> None:
    columns = {"id": ColumnType.TEXT, "n": ColumnType.BIGINT, "at": ColumnType.TIMESTAMP}
    assert sql.create_table("main", "seen", columns) == (
        'create transient table if not exists "MAIN"."SEEN" '
        '("ID" varchar, "N" number(19, 0), "AT" timestamp_tz(6)) data_retention_time_in_days = 0'
    )
    for statement in (*sql.OWN_TABLES.values(), sql.make_twin("main", "users", columns)):
        assert " transient table " in statement
        assert "data_retention_time_in_days = 0" in statement


def test_an_address_says_who_loads_and_who_asks() -> None:
    own, asking = addresses(
        "snowflake://loader:s%2Fsame@org-account/CDI?warehouse=LOADING&role=LOADER&private_key=/run/key.p8&query_role=READER&query_warehouse=ASKING"
    )
    assert (own["username"], own["password"], own["adbc.snowflake.sql.account"]) == ("loader", "s/same", "org-account")
    assert (own["adbc.snowflake.sql.db"], own["adbc.snowflake.sql.role"], own["adbc.snowflake.sql.warehouse"]) == (
        "CDI",
        "LOADER",
        "LOADING",
    )
    assert own["adbc.snowflake.sql.auth_type"] == "auth_jwt"
    assert (asking["adbc.snowflake.sql.role"], asking["adbc.snowflake.sql.warehouse"]) == ("READER", "ASKING")
    with pytest.raises(ValueError, match="account"):
        addresses("snowflake://loader:sesame@account")


def test_a_load_whose_commit_was_not_answered_is_found(place: Place, once: Once) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    plan = planned(warehouse, [builders.track("Seen", message_id="once")])
    once("gone after", "commit")
    with pytest.raises(Unavailable):
        warehouse.load(plan)
    with pytest.raises(Unavailable):
        warehouse.load(plan)
    assert warehouse.positions[AT] == Position(2, 2)
    assert rows(warehouse, "select count(*) from main.seen where id = 'once'") == [[1]]
    assert warehouse.counts() == {LOADED: 2}


@pytest.mark.parametrize("statement", ["put ", "begin", "update", "copy into", '"PROGRESS" values', '"LOADS" select', "commit"])
def test_a_session_that_is_gone_before_a_statement_leaves_nothing(place: Place, once: Once, statement: str) -> None:
    warehouse = place.open()
    load(warehouse, builders.identify(traits={"n": 1}))
    once("gone before", statement)
    with pytest.raises(Unavailable):
        load(warehouse, builders.identify(message_id="again", traits={"n": 2}))
    while warehouse.positions[AT] == Position(1, 1):
        try:
            load(warehouse, builders.identify(message_id="again", traits={"n": 2}))
        except Unavailable:  # what the session has left is taken back after a moment
            continue
    assert rows(warehouse, "select count(*), count(distinct id) from main.identifies") == [[2, 2]]
    assert rows(warehouse, "select n from main.users") == [[2]]
    assert warehouse.counts() == {LOADED: 2}


@pytest.mark.parametrize("statement", ["copy into", '"PROGRESS" values', '"LOADS" select', "select holder"])
def test_a_transaction_that_was_taken_back_is_not_committed_by_halves(place: Place, once: Once, statement: str) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    once("take back", statement)
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen", message_id="again"))
    assert rows(warehouse, "select count(*) from main.seen") == [[1]]
    load(warehouse, builders.track("Seen", message_id="again"))
    assert rows(warehouse, "select count(*), count(distinct id) from main.tracks") == [[2, 2]]
    assert warehouse.counts() == {LOADED: 2}


@pytest.mark.parametrize("what", ["gone before", "gone after"])
@pytest.mark.parametrize("statement", ["add column", 'set "N__DOUBLE" = "N"', "drop column", "rename column"])
def test_a_column_that_a_process_died_over_is_widened_by_the_next_one(place: Place, once: Once, statement: str, what: str) -> None:
    one = place.open()
    load(one, builders.track("Seen", message_id="a", properties={"n": 7}))
    once(what, statement)
    with pytest.raises(Unavailable):
        load(one, builders.track("Seen", message_id="b", properties={"n": 0.5}))
    other = place.open()
    load(other, builders.track("Seen", message_id="c", properties={"n": 2}), partition=1)
    load(other, builders.track("Seen", message_id="d", properties={"n": 1.5}), partition=1)
    assert other.catalog["main"]["seen"]["n"] is ColumnType.DOUBLE
    assert rows(other, "select id, n from main.seen order by id") == [["a", 7], ["c", 2], ["d", 1.5]]


def test_a_lock_that_was_lost_while_a_column_is_widened_ends_it_before_the_column_goes(place: Place, once: Once) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", message_id="a", properties={"n": 7}))
    once("take back", "select holder")
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen", message_id="b", properties={"n": 0.5}))
    assert set(rows(warehouse, "select * from main.seen")[0]) >= {7}
    load(warehouse, builders.track("Seen", message_id="b", properties={"n": 0.5}))
    assert rows(warehouse, "select id, n from main.seen order by id") == [["a", 7], ["b", 0.5]]


def test_after_rewriting_nothing_is_left_to_do(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", user_id="gone"))
    warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    assert warehouse.oldest_unrewritten_us() == NOW_US
    with closing(Session(addresses(place.options.url)[0])) as session:
        session.run(f"create transient table {sql.place('_cdi', sql.TRIED + 'left')} (id varchar)")
    place.rewrite()
    again = place.open()
    assert again.oldest_unrewritten_us() == 0
    assert rows(again, "select count(*) from information_schema.tables where table_name like 'TRY_%'") == [[0]]
    for own in ("people", "found"):
        assert rows(again, f"select count(*) from _cdi.{own}") == [[0]]


def test_what_is_no_query_is_not_run(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    for text in (
        "select 1) union all (select 2",
        "select 1\n) limit 0; delete from main.seen; select * from (select 1",
        "with x as (select 1) delete from main.seen",
        "with x as procedure () returns int language sql as 'begin delete from main.seen; end' call x()",
        "call system$wait(1)",
        "show tables",
        "select 1 /* ",
    ):
        with pytest.raises(InvalidArgument):
            warehouse.query(Question(text, LIMITS))
    assert rows(warehouse, "with x as (select id from main.seen) select count(*) from x -- a remark") == [[1]]


def test_no_password_is_in_what_a_failure_says() -> None:
    own, _ = addresses("snowflake://loader:open-sesame@account/CDI?host=127.0.0.1&port=1&protocol=http")
    with closing(Session(own)) as session, pytest.raises(Unavailable) as failure:
        session.run("select 1")
    assert "sesame" not in str(failure.value)
