"""What only a warehouse in Postgres can meet: locks of others, lost connections, months, roles."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from cdi_cli.embedded import PostgresServer
from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_testing import builders
from cdi_testing.eventually import eventually_sync
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.load import Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import QueryLimits, Question, Warehouse
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.postgresql.session import Refused

from .engines import LIMITS, LOADED, NOW_US, Place, load, planned, postgresql, records, rows

AT = StreamPartition("ENRICHED", 0)
WAITING = "select count(*) from pg_locks where not granted and relation = '_cdi.catalog'::regclass"


@pytest.fixture
def place(postgres_server: PostgresServer, database_url: str) -> Iterator[Place]:
    made = postgresql(postgres_server, database_url)
    yield made
    made.close()


Execute = Callable[[str], str]


@pytest.fixture
def execute(postgres_server: PostgresServer, database_url: str) -> Execute:
    """Runs a statement as another client of the database."""
    return lambda sql: postgres_server.execute(sql, database_url.rpartition("/")[2])


@contextlib.contextmanager
def transaction(url: str, *statements: str) -> Iterator[None]:
    """Another client in the middle of a transaction."""
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield


def test_an_erasure_by_a_process_whose_clock_is_late_is_seen(place: Place) -> None:
    one, other = place.open(), place.open()
    load(one, builders.track("Seen"))
    one.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "first")], NOW_US)], NOW_US)
    other.ensure_tables("main")
    assert other.newest_erasure_us == NOW_US
    before = planned(other, [builders.track("Seen", user_id="second")], partition=1)
    one.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "second")], NOW_US - 5)], NOW_US - 5)
    with pytest.raises(Unavailable):
        other.load(before)


def test_an_erasure_waits_for_loads_that_have_begun(place: Place, execute: Execute) -> None:
    one, other = place.open(), place.open()
    load(one, builders.track("Seen", user_id="gone"))
    plan = planned(one, [builders.track("Seen", user_id="gone")])
    begun, may_end = threading.Event(), threading.Event()

    def slowly() -> Iterator[TableLoad]:
        yield from plan.tables
        begun.set()
        may_end.wait(20)

    with ThreadPoolExecutor(2) as threads:
        loading = threads.submit(one.load, replace(plan, tables=slowly()))
        begun.wait(20)
        erasing = threads.submit(other.erase, [Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
        eventually_sync(lambda: execute(WAITING) == "1")
        may_end.set()
        loading.result()
        assert erasing.result().counts[0]["main.seen"] == 2
    assert rows(one, "select count(*) from main.seen") == [[0]]


def test_a_load_that_alters_tables_while_another_loads_is_done_alone_next(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    with ThreadPoolExecutor(1) as thread:
        with transaction(place.options.url, "lock table _cdi.catalog in row share mode"):
            load(warehouse, builders.track("Seen"))
            with pytest.raises(Unavailable):
                load(warehouse, builders.track("Seen", properties={"new": 1}))
            next_load = thread.submit(load, warehouse, builders.track("Seen", properties={"new": 1}))
            eventually_sync(lambda: execute(WAITING) == "1")
        next_load.result()
    assert rows(warehouse, "select count(*), count(new) from main.seen") == [[3, 1]]


def test_a_table_that_somebody_else_has_altered_is_seen_anew(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", properties={"n": 1}))
    execute("alter table main.seen drop column n")
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen", properties={"n": 2}))
    load(warehouse, builders.track("Seen", properties={"n": 3}))
    assert rows(warehouse, "select n from main.seen order by n") == [[3], [None]]


def test_after_a_lost_connection_the_next_load_goes_on(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    assert rows(warehouse, "select count(*) from main.seen") == [[1]]
    loaders = "from pg_stat_activity where datname = current_database() and application_name = 'cdi-warehouse-loader'"
    assert execute(f"select count(pg_terminate_backend(pid)) {loaders}") == "2"
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen"))
    with pytest.raises(Unavailable):
        warehouse.query(Question("select 1", LIMITS))
    load(warehouse, builders.track("Seen"))
    assert warehouse.broken is None
    assert rows(warehouse, "select count(*) from main.seen") == [[2]]


class Proxy:
    """Stands between a client and the server, and keeps the answer of a commit to itself when it is told to."""

    def __init__(self, port: int) -> None:
        self.keeps_answer = False
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                state = {"committing": False}
                threading.Thread(target=self._pass_on, args=(client, server, state, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, state, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, state: dict[str, bool], asks: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65_536):
                if asks and b"commit\0" in content:
                    state["committing"] = self.keeps_answer
                if not asks and state["committing"] and b"COMMIT\0" in content:  # it is done, and nobody hears of it
                    self.keeps_answer = False
                    break
                target.sendall(content)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_commit_whose_answer_was_lost_is_not_done_twice(place: Place) -> None:
    parts = urlsplit(place.options.url)
    assert parts.port
    proxy = Proxy(parts.port)
    try:
        url = parts._replace(netloc=parts.netloc.replace(str(parts.port), str(proxy.port))).geturl()
        warehouse = REGISTRY["postgresql"].open(Options(url))
        load(warehouse, builders.track("Seen"))
        again = planned(warehouse, [builders.track("Seen")])
        unaware = place.open()
        same = planned(unaware, [builders.track("Seen")])
        proxy.keeps_answer = True
        with pytest.raises(Unavailable):
            warehouse.load(again)
        assert not proxy.keeps_answer, "the answer was not kept"
        assert warehouse.positions[AT] == Position(2, 2)
        with pytest.raises(Unavailable):
            unaware.load(same)
        assert warehouse.counts() == {LOADED: 2}
        assert rows(warehouse, "select count(*) from main.seen") == [[2]]
        warehouse.close()
    finally:
        proxy.close()


def test_months_get_partitions_and_take_over_what_came_before_them(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    warehouse.ensure_tables("main")
    received = "insert into main.tracks (id, received_at) values "
    execute(f"{received} ('early', '2026-01-31 23:59:59.999999+00'), ('next', '2026-02-01 00:00:00+00'), ('never', null)")
    load(warehouse, builders.track("Seen", message_id="a", at=builders.EVENT_TIME.replace(year=2026, month=1)))
    held = "select tableoid::regclass::text, string_agg(id, ' ' order by id) from main.tracks group by 1 order by 1"
    assert rows(warehouse, held) == [["_cdi.tracks_1_2026_01", "a early"], ["_cdi.tracks_1_others", "never next"]]
    load(warehouse, builders.track("Seen", message_id="b", at=builders.EVENT_TIME.replace(year=1999)))
    assert rows(warehouse, held) == [["_cdi.tracks_1_2026_01", "a early"], ["_cdi.tracks_1_others", "b never next"]]
    place.close()
    again = place.open()
    load(again, builders.track("Seen", message_id="c", at=builders.EVENT_TIME.replace(year=2026, month=1)))
    assert rows(again, held)[0] == ["_cdi.tracks_1_2026_01", "a c early"]


def test_what_moved_into_a_month_is_gone_from_where_it_lay(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    warehouse.ensure_tables("main")
    execute(
        "insert into main.tracks (id, workspace_id, user_id, event_text, received_at)"
        f" values ('early', '{builders.WORKSPACE}', 'gone', 'planted-0c9d', '2026-01-31')"
    )
    load(warehouse, builders.track("Seen", user_id="other", at=builders.EVENT_TIME.replace(year=2026, month=1)))
    assert warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US).counts == [{"main.tracks": 1}]
    assert b"planted-0c9d" in place.stored()
    with transaction(place.options.url, "select pg_advisory_lock(1777183548)"):  # as another process that writes anew
        assert warehouse.oldest_unrewritten_us() == 0
    assert warehouse.oldest_unrewritten_us() == NOW_US
    place.rewrite()
    assert b"planted-0c9d" not in place.stored()


def test_a_row_that_is_too_large_for_a_page_is_refused_and_nothing_else(place: Place) -> None:
    warehouse = place.open()
    wide = planned(warehouse, [builders.track("Wide", properties={f"p{number}": "text " * 6 for number in range(900)})])
    with pytest.raises(Refused, match="row is too big"):
        warehouse.load(wide)
    load(warehouse, builders.track("Seen"))
    assert warehouse.catalog["main"].keys() & {"wide", "seen"} == {"seen"}


def test_schemas_of_others_are_none_of_its_business(place: Place, execute: Execute) -> None:
    execute("create table users (workspace_id text, id text)")
    execute(f"insert into users values ('{builders.WORKSPACE}', 'gone')")
    warehouse = place.open()
    load(warehouse, builders.identify(user_id="gone"))
    erased = warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    assert erased.counts[0]["main.users"] == 1
    assert warehouse.catalog.keys() == {"main"}
    assert execute("select count(*) from public.users") == "1"


def test_a_schema_of_an_older_loader_is_completed(place: Place, execute: Execute) -> None:
    load(place.open(), builders.track("Seen", message_id="old"))
    place.close()
    execute("drop view main.events_by_person")
    execute("create view main.events_by_person as select id from main.tracks")
    execute("alter table main.seen drop column demoted_identifiers")
    execute("update _cdi.schemas set views = 'of an older loader'")
    warehouse = place.open()
    assert "demoted_identifiers" in warehouse.catalog["main"]["seen"]
    load(warehouse, builders.track("Seen", message_id="new"))
    assert rows(warehouse, "select id, event_type from main.events_by_person order by id") == [["new", "track"], ["old", "track"]]


def test_what_stands_in_the_way_of_tables_is_waited_for(place: Place, execute: Execute) -> None:
    execute("create schema main")
    execute("create table main.tracks (id text)")
    execute("grant all on schema main to public")
    warehouse = place.open()
    with pytest.raises(Unavailable, match="tracks"):
        load(warehouse, builders.track("Seen"))
    execute("drop table main.tracks")
    load(warehouse, builders.track("Seen"))


def test_a_server_that_only_reads_now_is_left(place: Place, execute: Execute) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    role = urlsplit(place.options.url).username
    execute(f"alter role {role} set default_transaction_read_only = on")
    warehouse.close()
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen"))
    execute(f"alter role {role} reset default_transaction_read_only")
    with pytest.raises(Unavailable):
        load(warehouse, builders.track("Seen"))
    load(warehouse, builders.track("Seen"))
    assert rows(warehouse, "select count(*) from main.seen") == [[2]]


def test_rewriting_waits_for_who_may_still_look(place: Place, database_url: str) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", user_id="gone", properties={"note": "planted-55b0"}))
    with transaction(database_url, "set transaction isolation level repeatable read", "select count(*) from main.seen"):
        warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
        assert warehouse.oldest_unrewritten_us() == 0
        with pytest.raises(Unavailable, match="has not ended"):
            place.rewrite()
    assert place.open().oldest_unrewritten_us() == NOW_US
    place.rewrite()
    assert b"planted-55b0" not in place.stored()
    assert place.open().oldest_unrewritten_us() == 0


def test_queries_may_have_a_role_of_their_own(place: Place, execute: Execute) -> None:
    load(place.open(), builders.track("Seen"))
    execute("create role analyst login password 'p&w'")
    try:
        execute("grant usage on schema main to analyst")
        execute("grant select on main.seen to analyst")
        url = f"{place.options.url}?query_user=analyst&query_password=p%26w"
        warehouse = REGISTRY["postgresql"].open(Options(url))
        assert rows(warehouse, "select count(*), max(current_user::text) from seen") == [[1, "analyst"]]
        for sql in ("select * from main.tracks", "select * from _cdi.progress", "select set_config('role', 'cdi', false)"):
            with pytest.raises(InvalidArgument):
                rows(warehouse, sql)
        load(warehouse, builders.track("Seen", properties={"more": 1}))
        assert warehouse.counts() == {LOADED: 2}
        warehouse.close()
    finally:
        execute("drop owned by analyst")
        execute("drop role analyst")


def test_questions_with_purposes_need_a_login_that_policies_hold(place: Place, execute: Execute) -> None:
    asking = place.asking() if place.asking else place.options
    owner, reader = (f"{who}_of_{urlsplit(place.options.url).path.removeprefix('/')}" for who in ("owner", "reader"))
    load(place.open(), builders.track("Seen"))
    asked = {"purposes": frozenset({"ads"})}
    with pytest.raises(InvalidArgument, match="query_user"):
        rows(place.open(), "select id from main.seen", **asked)
    warehouse = place.open(asking)
    assert rows(warehouse, "select id from main.seen", **asked) == []
    for given, taken in (
        (f"grant usage on schema _cdi to {reader}", f"revoke usage on schema _cdi from {reader}"),
        (f"grant {owner} to {reader}", f"revoke {owner} from {reader}"),
        (f"alter role {reader} bypassrls", f"alter role {reader} nobypassrls"),
        ("alter table main.seen disable row level security", "alter table main.seen enable row level security"),
    ):
        execute(given)
        with pytest.raises(InvalidArgument, match="past row security"):
            rows(warehouse, "select id from main.seen", **asked)
        execute(taken)
    assert rows(warehouse, "select id from main.seen", **asked) == []
    # What a loader that died was asked says nothing of a question without purposes.
    logins = "select pid, usename, '{nobody}' from pg_stat_activity where datname = current_database() and usename is not null"
    execute(f"insert into _cdi.questions {logins}")  # autovacuum is there without a login
    assert len(rows(warehouse, "select id from main.seen")) == 1
    # Nor does it of others who log in, whose process may get its number.
    execute(f"grant usage on schema main to {reader}; grant select on main.seen to {reader}")
    direct = place.options.url.replace(f"{owner}:sesame-3f", f"{reader}:open")
    asked_here = "insert into _cdi.questions select pid, '{}', '{{nobody}}' from pg_stat_activity where datname = current_database()"
    with dbapi.connect(direct) as connection, connection.cursor() as cursor:
        for login, seen in (("somebody else", 1), (reader, 0)):
            execute(f"delete from _cdi.questions; {asked_here.format(login)}")
            cursor.execute("select count(*) from main.seen")
            assert cursor.fetchall() == [(seen,)]


def test_tables_of_an_older_loader_come_under_row_security(place: Place, execute: Execute) -> None:
    asking = place.asking() if place.asking else place.options
    load(place.open(), builders.track("Seen"))
    execute("drop policy cdi_purposes on main.seen; alter table main.seen disable row level security")
    warehouse = place.open(asking)
    assert rows(warehouse, "select id from main.seen", purposes=frozenset({"ads"})) == []
    assert len(rows(warehouse, "select id from main.seen")) == 1


def test_refusals_say_no_value_and_no_password(place: Place, postgres_server: PostgresServer) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", properties={"email": "ada@example.com"}))
    for sql in ("select email::integer from main.seen", "select 1 / 0", "select row(1, 'a')"):
        refusal = _refusal(warehouse, sql)
        assert "ada" not in refusal
    password = urlsplit(place.options.url).password or ""
    wrong = place.options.url.replace(f":{password}@", f":{password}-wrong@")
    for url in (wrong, place.options.url.replace("127.0.0.1:", "127.0.0.1:no-port-")):
        with pytest.raises(Unavailable) as refused:
            REGISTRY["postgresql"].open(Options(url))
        assert password not in str(refused.value)


def _refusal(warehouse: Warehouse, sql: str) -> str:
    with pytest.raises(InvalidArgument) as refused:
        warehouse.query(Question(sql, LIMITS))
    return str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "copy main.seen to stdout",
        "commit",
        "set statement_timeout = 0",
        "select 1) to program 'true' --",
        "with gone as (delete from main.seen returning id) select * from gone",
        "select set_config('transaction_read_only', 'off', true)",
        "explain analyze delete from main.seen",
        "select 1\0; drop table main.seen",
    ],
)
def test_no_statement_gets_out_of_its_transaction(place: Place, sql: str) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen"))
    _refusal(warehouse, sql)
    assert rows(warehouse, "select count(*) from main.seen") == [[1]]


def test_other_shapes_of_a_statement_are_answered(place: Place) -> None:
    warehouse = place.open()
    load(warehouse, builders.track("Seen", message_id="one"))
    for sql, expected in (
        ("/* a remark */ select id from seen; ", [["one"]]),
        ("(select 1) -- a remark", [[1]]),
        ("values (1), (2)", [[1], [2]]),
        ("show server_encoding", [["UTF8"]]),
        ("select 1::numeric, '2026-01-01'::date, '{\"a\": 1}'::jsonb, array[1, null], 9007199254740993, 'NaN'::float",
         [["1", "2026-01-01", '{"a": 1}', "[1, null]", "9007199254740993", "nan"]]),
    ):  # fmt: skip
        assert rows(warehouse, sql) == expected
    (row,) = records(warehouse, "select sum(n) as sum, '[1]'::jsonb as list, n from (values (1::bigint), (2)) t(n) group by n having n = 2")
    assert row == {"sum": "2", "list": "[1]", "n": 2}
    batches: list[pa.RecordBatch] = []
    warehouse.stream(Question("select avg(1) as mean", LIMITS), batches.append)
    assert batches[0].schema.field("mean").type == pa.string()
    assert "Seq Scan" in str(rows(warehouse, "explain select * from main.seen"))
    assert warehouse.query(Question("select 1 as n, now() as at", LIMITS)).columns == [("n", "int4"), ("at", "timestamptz")]


def test_a_large_answer_that_is_cut_does_not_keep_the_session(place: Place) -> None:
    warehouse = place.open()
    endless = Question("select repeat('x', 1000), generate_series(1, 1000000000000)", QueryLimits(5, 1_000_000, 600.0))
    for _ in range(3):
        answer = warehouse.query(endless)
        assert (len(answer.values), answer.truncated) == (5, True)
    assert rows(warehouse, "select 1") == [[1]]


def test_rows_that_are_sent_in_slices_come_as_they_are(place: Place) -> None:
    """More rows than a slice has, with nulls and bits wherever a slice may begin."""
    warehouse = place.open()
    values = [{"b": n % 3 == 0, "n": n, "x": n / 4, "t": f"text {n}"} for n in range(350)]
    sent = [{name: value for at, (name, value) in enumerate(one.items()) if (n + at) % 5} for n, one in enumerate(values)]
    load(warehouse, *(builders.track("Sliced", message_id=f"m{n:03}", properties=one) for n, one in enumerate(sent)))
    found = rows(warehouse, "select id, b, n, x, t from main.sliced order by id")
    assert found == [[f"m{n:03}", *(one.get(name) for name in ("b", "n", "x", "t"))] for n, one in enumerate(sent)]
    assert rows(warehouse, "select id from main.tracks order by id") == [[one[0]] for one in found]
