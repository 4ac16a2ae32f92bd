"""What only a warehouse in Snowflake can meet: its SQL, sessions that are gone in the middle, locks that are lost, columns half widened."""

import contextlib
import json
import urllib.request
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("adbc_driver_snowflake", reason="no Snowflake here: pip install 'cdi-warehouse-loader[snowflake-test]'")

from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_testing import builders
from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.load import START, StreamPartition
from cdi_warehouse_loader.ports import Question, Warehouse
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.addresses import addresses
from cdi_warehouse_loader.warehouses.snowflake.session import Refused, Session

from .engines import LIMITS, LOADED, NOW_US, Place, load, planned, rows, snowflake

NO_TRIES = "select count(*) from information_schema.tables where startswith(table_name, 'TRY_')"
AT = StreamPartition("ENRICHED", 0)
Once = Callable[[str, str], None]


@pytest.fixture(scope="module")
def place(snowflake_port: int) -> Iterator[Place]:
    """One warehouse for all tests: to make a schema takes the server some seconds. Each has a table of its own."""
    made = snowflake(snowflake_port)
    yield made
    made.close()


@pytest.fixture
def warehouse(place: Place) -> Warehouse:
    place.close()
    return place.open()


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
    _, other = addresses("snowflake://loader:sesame@account/CDI?private_key=/run/key.p8&query_user=reader&query_password=open")
    assert (other["username"], other["password"]) == ("reader", "open")
    assert not [name for name in other if "jwt" in name or "auth_type" in name]
    with pytest.raises(ValueError, match="account"):
        addresses("snowflake://loader:sesame@account")


def loaded(warehouse: Warehouse) -> int:
    """Messages so far."""
    return warehouse.positions.get(AT, START).sequence


def patiently(do: Callable[[], object]) -> None:
    """Does it again while it cannot be done: what a session has left that is gone is taken back after a moment."""

    def done() -> bool:
        with contextlib.suppress(Unavailable):
            do()
            return True
        return False

    eventually_sync(done, within=60)


def test_a_load_whose_commit_was_not_answered_is_found(warehouse: Warehouse, once: Once) -> None:
    load(warehouse, builders.track("Answered", message_id="a"))
    before, counted = loaded(warehouse), warehouse.counts()[LOADED]
    plan = planned(warehouse, [builders.track("Answered", message_id="once")])
    once("gone after", "commit")
    with pytest.raises(Unavailable):
        warehouse.load(plan)
    assert loaded(warehouse) == before + 1
    assert rows(warehouse, "select id from main.answered order by id") == [["a"], ["once"]]
    assert warehouse.counts()[LOADED] == counted + 1


def test_a_session_that_is_gone_before_a_statement_leaves_nothing(warehouse: Warehouse, once: Once) -> None:
    load(warehouse, builders.identify(message_id="gone", user_id="gone", traits={"n": 0}))
    counted = warehouse.counts()[LOADED]
    statements = ("put ", "begin", "set holder", "copy into", 'from "_CDI"."MAIN__USERS"', '"PROGRESS" values', '"LOADS" select', "commit")
    for number, statement in enumerate(statements, 1):
        before = loaded(warehouse)
        event = builders.identify(message_id=f"gone-{number}", user_id="gone", traits={"n": number}, at=builders.EVENT_TIME)
        once("gone before", statement)
        with pytest.raises(Unavailable):
            load(warehouse, event)
        assert loaded(warehouse) == before
        patiently(lambda event=event: load(warehouse, event))  # type: ignore[misc]
    asked = "select count(*), count(distinct id) from main.identifies where user_id = 'gone'"
    assert rows(warehouse, asked) == [[len(statements) + 1] * 2]
    assert rows(warehouse, "select n from main.users where id = 'gone'") == [[len(statements)]]
    assert warehouse.counts()[LOADED] == counted + len(statements)


def test_a_transaction_that_was_taken_back_is_not_committed_by_halves(warehouse: Warehouse, once: Once) -> None:
    load(warehouse, builders.track("Halved", message_id="first"))
    statements = ("copy into", '"PROGRESS" values', '"LOADS" select', "select holder")
    for number, statement in enumerate(statements, 1):
        once("take back", statement)
        with pytest.raises(Unavailable):
            load(warehouse, builders.track("Halved", message_id=f"m{number}"))
        assert rows(warehouse, "select count(*) from main.halved") == [[number]]
        load(warehouse, builders.track("Halved", message_id=f"m{number}"))
    assert rows(warehouse, "select count(*), count(distinct id) from main.halved") == [[len(statements) + 1] * 2]


@pytest.mark.parametrize("what", ["gone before", "gone after"])
def test_a_column_that_a_process_died_over_is_widened_by_the_next_one(place: Place, once: Once, what: str) -> None:
    for number, statement in enumerate(("add column", 'set "N__DOUBLE" = "N"', "drop column", "rename column")):
        name = f"{what} {number}"
        table = f"main.{name.replace(' ', '_')}"
        dying = place.open()
        load(dying, builders.track(name, message_id="a", properties={"n": 7}))
        once(what, statement)
        with pytest.raises(Unavailable):
            load(dying, builders.track(name, message_id="b", properties={"n": 0.5}))
        place.close()
        patiently(place.open)
        other = place.opened[-1]
        patiently(lambda: load(other, builders.track(name, message_id="c", properties={"n": 2}), partition=1))  # noqa: B023
        patiently(lambda: load(other, builders.track(name, message_id="d", properties={"n": 1.5}), partition=1))  # noqa: B023
        assert other.catalog["main"][table.removeprefix("main.")]["n"] is ColumnType.DOUBLE
        assert rows(other, f"select id, n from {table} order by id") == [["a", 7], ["c", 2], ["d", 1.5]]
        assert rows(other, f"select count(*) from {table} where n = 2") == [[1]]


def test_a_lock_that_was_lost_while_a_column_is_widened_ends_it_before_the_column_goes(warehouse: Warehouse, once: Once) -> None:
    load(warehouse, builders.track("Lost", message_id="a", properties={"n": 7}))
    once("take back", "select holder")
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Lost", message_id="b", properties={"n": 0.5}))
    assert 7 in rows(warehouse, "select * from main.lost")[0]
    load(warehouse, builders.track("Lost", message_id="b", properties={"n": 0.5}))
    assert rows(warehouse, "select id, n from main.lost order by id") == [["a", 7], ["b", 0.5]]


def test_values_that_snowflake_refuses_end_a_load_and_its_try(warehouse: Warehouse, once: Once) -> None:
    events = [builders.track("Refused", message_id="a", properties={"n": 1})]
    for keep in (True, False):
        once("refused", "copy into")
        with pytest.raises(Refused, match="100038"):
            warehouse.load(planned(warehouse, events), keep=keep)
    load(warehouse, *events)
    assert rows(warehouse, "select count(*) from main.refused") == [[1]]
    assert rows(warehouse, NO_TRIES) == [[0]]


def test_after_rewriting_nothing_is_left_to_do(place: Place, warehouse: Warehouse) -> None:
    load(warehouse, builders.track("Erased", user_id="erased"))
    warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "erased")], NOW_US)], NOW_US)
    assert warehouse.oldest_unrewritten_us() == NOW_US
    with contextlib.closing(Session(addresses(place.options.url)[0])) as session:
        session.run(f"create transient table {sql.place('_cdi', sql.TRIED + 'left')} (id varchar)")
    place.rewrite()
    again = place.open()
    assert again.oldest_unrewritten_us() == 0
    assert rows(again, NO_TRIES) == [[0]]
    for own in ("people", "found", "main__users"):
        assert rows(again, f"select count(*) from _cdi.{own}") == [[0]]


def test_what_is_no_query_is_not_run(warehouse: Warehouse) -> None:
    load(warehouse, builders.track("Asked"))
    for text in (
        "select 1) union all (select 2",
        "select 1\n) limit 0; delete from main.asked; select * from (select 1",
        "with x as (select 1) delete from main.asked",
        "with x as procedure () returns int language sql as 'begin delete from main.asked; end' call x()",
        "call system$wait(1)",
        "show tables",
        "select 1 /* ",
    ):
        with pytest.raises(InvalidArgument):
            warehouse.query(Question(text, LIMITS))
    assert rows(warehouse, "with x as (select id from main.asked) select count(*) from x -- a remark") == [[1]]


def test_no_password_is_in_what_a_failure_says() -> None:
    own, _ = addresses("snowflake://loader:open-sesame@account/CDI?host=127.0.0.1&port=1&protocol=http")
    with contextlib.closing(Session(own)) as session, pytest.raises(Unavailable) as failure:
        session.run("select 1")
    assert "sesame" not in str(failure.value)
