"""The lake: that a commit over many tables is one, other processes, other readers, small files, and what is left of old ones."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs
from pyiceberg.catalog import Catalog, load_catalog

from cdi_kernel.faults import InvalidArgument, Unavailable
from cdi_testing import builders
from cdi_warehouse_loader.domain.archive import archive_load
from cdi_warehouse_loader.domain.erasure import Erasure, PersonId
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.warehouses import REGISTRY
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.iceberg.catalog import CatalogDatabase
from cdi_warehouse_loader.warehouses.iceberg.compaction import JOINED
from cdi_warehouse_loader.warehouses.iceberg.erasure import Erasing
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.warehouse import IcebergWarehouse

from .conftest import graph_changed
from .engines import LOADED, NOW_US, Place, files, iceberg, load, load_graph, planned, planned_items, rows

DAY = timedelta(days=1)
DIES = """
create function die() returns trigger language plpgsql as 'begin perform pg_terminate_backend(pg_backend_pid()); return null; end';
create constraint trigger dies after insert on _cdi_loads deferrable initially deferred for each row execute function die()"""
"""Ends the connection in the midst of a commit of a load."""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A lake with each of its catalogs."""
    made = iceberg(tmp_path)
    if request.param == "postgres":
        database = request.getfixturevalue("database_url")
        made = replace(made, options=Options(f"iceberg+{_scheme(database)}?warehouse={tmp_path}/lake"))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Place]:
    """A lake in a folder."""
    made = iceberg(tmp_path)
    yield made
    made.close()


def during(load: Load, act: Callable[[], object], *, last: bool = False) -> Load:
    """A load in whose midst, or at whose end, something happens: its files are written, nothing is committed."""

    def tables() -> Iterator[TableLoad]:
        planned = list(load.tables)
        middle = len(planned) if last else 1
        yield from planned[:middle]
        act()
        yield from planned[middle:]

    return replace(load, tables=tables())


def test_two_processes_that_load_other_partitions_into_the_same_tables_are_in_nobodys_way(place: Place) -> None:
    one, other = place.open(), place.open()
    load(one, builders.page(message_id="before"))
    load(other, builders.page(message_id="as well"), partition=7)
    mine = planned(one, [builders.page(message_id="mine")], partition=1)
    one.load(during(mine, lambda: load(other, builders.page(message_id="theirs"), partition=2)))
    assert rows(one, "select id from main.pages order by id") == [["as well"], ["before"], ["mine"], ["theirs"]]
    assert one.counts() == {LOADED: 4}


def test_two_processes_that_meet_the_same_person_do_not_make_two_of_him(place: Place) -> None:
    load(place.open(), builders.identify(message_id="before", user_id="somebody", traits={"plan": "free", "city": "Rome"}))
    one, other = place.open(), place.open()
    mine = planned(one, [builders.identify(message_id="mine", traits={"plan": "pro"})], partition=1)
    with pytest.raises(Unavailable):
        one.load(during(mine, lambda: load(other, builders.identify(message_id="theirs", traits={"city": "Paris"}), partition=2)))
    assert rows(one, "select id from main.identifies order by id") == [["before"], ["theirs"]]
    load(one, builders.identify(message_id="mine", traits={"plan": "pro"}), partition=1)
    assert rows(other, "select id, plan, city from main.users order by id") == [["somebody", "free", "Rome"], ["user-1", "pro", "Paris"]]


def test_a_column_that_widens_while_another_process_adds_to_it_loses_nothing(place: Place) -> None:
    load(place.open(), builders.track("Seen", message_id="before", properties={"n": 1}))
    one, other = place.open(), place.open()
    mine = planned(one, [builders.track("Seen", message_id="mine", properties={"n": 0.5})], partition=1)
    theirs = builders.track("Seen", message_id="theirs", properties={"n": 2})
    with pytest.raises(Unavailable):
        one.load(during(mine, lambda: load(other, theirs, partition=2), last=True))
    load(one, builders.track("Seen", message_id="mine", properties={"n": 0.5}), partition=1)
    assert rows(one, "select id, n from main.seen order by id") == [["before", 1.0], ["mine", 0.5], ["theirs", 2.0]]


def test_what_was_planned_before_another_process_was_noticed_is_not_loaded(place: Place) -> None:
    """A call for another stream finds how the lake stands, while a load is still planned by how it stood."""
    one, other = place.open(), place.open()
    stale = planned(one, [builders.page(message_id="once")])
    load(other, builders.page(message_id="once"))
    graph = StreamPartition("IDENTITY", 0)
    other.load(Load("IDENTITY", 1, (), {graph: Position(5, 0)}, {}))
    with pytest.raises(Unavailable):
        one.load(Load("IDENTITY", 1, (), {graph: Position(5, 0)}, {}))
    assert one.positions[graph] == Position(5, 0)
    with pytest.raises(Unavailable):
        one.load(stale)
    assert rows(one, "select id from main.pages") == [["once"]]
    load(one, builders.page(message_id="twice"))
    assert rows(one, "select count(*) from main.pages") == [[2]]


def test_an_erasure_by_another_process_is_noticed(place: Place) -> None:
    one, other = place.open(), place.open()
    load(one, builders.page(message_id="before", user_id="gone"))
    erasure = Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)
    other.ensure_tables("main")
    mine = planned(one, [builders.page(message_id="late", user_id="gone")])
    with pytest.raises(Unavailable):
        one.load(during(mine, lambda: other.erase([erasure], NOW_US)))
    assert one.newest_erasure_us == NOW_US
    assert rows(one, "select count(*) from main.pages") == [[0]]


def test_erasing_finds_what_others_load_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = place.open(), place.open()
    load(one, builders.page(message_id="before", user_id="gone"))
    other.ensure_tables("main")
    looked = Erasing.look_through

    def meanwhile(self: Erasing, tables: object) -> None:
        looked(self, tables)  # type: ignore[arg-type]
        monkeypatch.undo()
        load(other, builders.page(message_id="meanwhile", user_id="gone"), partition=1)

    monkeypatch.setattr(Erasing, "look_through", meanwhile)
    erased = one.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    assert erased.counts[0] == {"main.pages": 2}
    assert rows(one, "select count(*) from main.pages") == [[0]]
    with pytest.raises(Unavailable):
        load(one, builders.page(message_id="next"), partition=1)
    load(one, builders.page(message_id="next"), partition=1)
    assert rows(one, "select id from main.pages") == [["next"]]


def test_files_of_a_load_that_was_not_committed_are_cleared_away_and_the_load_is_not_committed_later(place: Place, tmp_path: Path) -> None:
    warehouse = place.open()
    load(warehouse, builders.page(message_id="before"))
    token = "planted-11ab"
    doomed = planned(warehouse, [builders.page(message_id="doomed", user_id=token), builders.identify(user_id=token)])

    def rewritten() -> None:
        assert any(token.encode() in one.read_bytes() for one in tmp_path.rglob("*.parquet"))
        REGISTRY["iceberg"].rewrite(place.options)
        assert token.encode() not in files(tmp_path)

    assert isinstance(warehouse, IcebergWarehouse)
    warehouse._storage.is_local = False  # as elsewhere nothing is synced, so nothing else can notice that files are gone
    with pytest.raises(Unavailable):
        warehouse.load(during(doomed, rewritten))
    warehouse._storage.is_local = True
    assert rows(warehouse, "select id from main.pages") == [["before"]]
    load(warehouse, builders.page(message_id="after"))
    assert rows(warehouse, "select id from main.pages order by id") == [["after"], ["before"]]


def test_a_load_that_fails_leaves_no_files(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    load(warehouse, builders.page(message_id="before"), builders.identify())
    lying = {one for one in (tmp_path / "lake/tables").rglob("*") if one.is_file()}
    mine = planned(warehouse, [builders.page(message_id="mine"), builders.identify(), builders.track("New one")])

    def broken() -> None:
        assert {one for one in (tmp_path / "lake/tables").rglob("*") if one.is_file()} - lying
        raise ValueError("a plan that breaks")

    with pytest.raises(ValueError, match="a plan that breaks"):
        warehouse.load(during(mine, broken))
    assert {one for one in (tmp_path / "lake/tables").rglob("*") if one.is_file()} == lying


def test_the_catalog_is_back_after_it_was_away(database_url: str, tmp_path: Path) -> None:
    warehouse = REGISTRY["iceberg"].open(Options(f"iceberg+{_scheme(database_url)}?warehouse={tmp_path}/lake"))
    load(warehouse, builders.page(message_id="before"))
    mine = planned(warehouse, [builders.page(message_id="mine")])
    with psycopg.connect(_scheme(database_url), autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null")
    warehouse.load(mine)
    assert warehouse.broken is None
    assert rows(warehouse, "select count(*) from main.pages") == [[2]]
    warehouse.close()


def test_a_commit_that_is_not_answered_is_not_believed_to_be_done_or_undone(database_url: str, tmp_path: Path) -> None:
    warehouse = REGISTRY["iceberg"].open(Options(f"iceberg+{_scheme(database_url)}?warehouse={tmp_path}/lake"))
    load(warehouse, builders.page(message_id="before"))
    with psycopg.connect(_scheme(database_url), autocommit=True) as connection:
        connection.execute(DIES)
        mine = planned(warehouse, [builders.page(message_id="mine")])
        lying = set(tmp_path.rglob("*.parquet"))
        with pytest.raises(Unavailable):
            warehouse.load(mine)
        assert len(set(tmp_path.rglob("*.parquet")) - lying) == 1  # it might be a table's
        connection.execute("drop trigger dies on _cdi_loads")
    load(warehouse, builders.page(message_id="mine"))
    assert rows(warehouse, "select id from main.pages order by id") == [["before"], ["mine"]]
    warehouse.close()


def test_a_query_whose_files_were_cleared_away_is_asked_again(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    load(warehouse, builders.page(message_id="m"))
    (page,) = (tmp_path / "lake/tables/main").glob("pages-*/data/*")
    page.rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        rows(warehouse, "select id from main.pages")
    (tmp_path / "away").rename(page)
    assert rows(warehouse, "select id from main.pages") == [["m"]]


def test_other_readers_of_iceberg_see_the_same(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    at = builders.EVENT_TIME
    for day in range(3):
        load(
            warehouse, builders.track("Order Completed", message_id=f"m{day}", at=at + day * DAY, properties={"total": day, "größe": "xl"})
        )
    load(warehouse, builders.track("Order Completed", message_id="m3", at=at, properties={"total": 2.5}))
    catalog = _catalog(tmp_path)
    assert catalog.list_namespaces() == [("main",)]
    table = catalog.load_table(("main", "order_completed"))
    found = table.scan().to_arrow().sort_by("id")
    assert found.column("id").to_pylist() == ["m0", "m1", "m2", "m3"]
    assert found.column("total").to_pylist() == [0.0, 1.0, 2.0, 2.5]
    assert found.column("größe").to_pylist() == ["xl", "xl", "xl", None]
    assert [one.name for one in table.spec().fields] == ["received_at_day"]
    assert sorted(one["record_count"] for one in table.inspect.partitions().to_pylist()) == [1, 1, 2]
    late = table.scan(row_filter=f"received_at >= '{(at + 2 * DAY).isoformat()}'")
    assert len(list(late.plan_files())) == 1
    assert late.to_arrow().column("id").to_pylist() == ["m2"]


def test_the_archive_has_a_partition_per_day_and_source(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    warehouse.ensure_tables("cdi_archive")
    at = builders.EVENT_TIME
    places = [("web", 0), ("app", 0), ("web", 1), ("", 1)]
    events = [
        builders.track(
            "Seen", message_id=f"m{number}", source_id=source, at=at + day * DAY, received_time=builders.timestamp(at + day * DAY)
        )
        for number, (source, day) in enumerate(places)
    ]
    for number in range(2):
        tables = [archive_load(planned_items(*events), warehouse.catalog.get("cdi_archive", {}))]
        warehouse.load(Load("ENRICHED", len(events), tables, {}, {}))
        table = _catalog(tmp_path).load_table(("cdi_archive", "events"))
        assert [one.name for one in table.spec().fields] == ["received_at_day", "source_id"]
        assert sorted(one["record_count"] for one in table.inspect.partitions().to_pylist()) == [number + 1] * len(places)
    found = table.scan(row_filter="source_id == 'app'")
    assert {file.file.record_count for file in found.plan_files()} == {1}
    assert found.to_arrow().column("id").to_pylist() == ["m1", "m1"]


def test_small_files_become_one_and_the_old_ones_are_there_for_those_who_read_them(folder: Place) -> None:
    warehouse = folder.open()
    loads = 2 * JOINED + 3
    for number in range(loads):
        load(warehouse, builders.track("Seen", message_id=f"m{number:03}", properties={"number": number if number < loads - 2 else 0.5}))
    assert isinstance(warehouse, IcebergWarehouse)
    table = warehouse._lake.tables["main", "seen"]
    assert len(table.files) <= JOINED
    assert rows(warehouse, "select count(*), count(distinct id), sum(number) from main.seen") == [[loads, loads, sum(range(loads - 2)) + 1]]
    lying = list((Path(folder.options.path) / "tables/main").glob("seen-*/data/*"))
    assert len(lying) >= loads
    warehouse._clear(0)
    lying = list((Path(folder.options.path) / "tables/main").glob("seen-*/data/*"))
    assert {f"file://{one}" for one in lying} == set(table.files)
    assert rows(warehouse, "select count(*) from main.seen") == [[loads]]


def test_there_are_few_lists_of_files_however_many_loads_there_were(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    for number in range(40):
        load(warehouse, builders.page(message_id=f"m{number}", at=builders.EVENT_TIME + number * DAY, user_id=f"user-{number}"))
    folder.close()
    again = folder.open()
    assert isinstance(again, IcebergWarehouse)
    table = again._lake.tables["main", "pages"]
    assert len(table.files) == 40  # one per day
    assert len(table.manifests) <= 17
    assert rows(again, "select count(*), count(distinct id) from main.pages") == [[40, 40]]
    again.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", f"user-{number}") for number in (0, 17, 39)], NOW_US)], NOW_US)
    assert rows(again, "select count(*) from main.pages") == [[37]]
    assert _catalog(tmp_path).load_table(("main", "pages")).scan().count() == 37


def test_a_query_reads_tables_and_no_files(folder: Place, tmp_path: Path) -> None:
    warehouse = folder.open()
    load(warehouse, builders.page(message_id="m"), builders.page(message_id="gone", user_id="gone"), builders.track("Seen"))
    (tmp_path / "secret.txt").write_text("secret")
    (replaced,) = (tmp_path / "lake/tables/main").glob("pages-*/data/*")
    warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    assert replaced.exists()
    for sql in (
        f"from read_text('{tmp_path}/secret.txt')",
        f"from glob('{tmp_path}/lake/**')",
        f"from read_parquet('{replaced}')",
        f"from '{replaced.parent}/*.parquet'",
        f"from '{tmp_path}/lake/catalog.db'",
        f"copy (select 1) to '{tmp_path}/out.csv'",
        f"attach '{tmp_path}/lake/catalog.db'",
        "set enable_external_access = true",
    ):
        with pytest.raises(InvalidArgument):
            rows(warehouse, sql)
    assert {"pages", "seen", "events_by_person"} <= {row[0] for row in rows(warehouse, "select table_name from information_schema.tables")}
    assert rows(warehouse, 'select id from main."PAGES"') == [["m"]]
    assert rows(warehouse, "select id from query_table('main.' || 'pa' || 'ges')") == [["m"]]
    load_graph(warehouse, graph_changed(canonicals=[("p1", "p1")]))
    assert rows(warehouse, "select id from main.by_person(pages)") == [["m"]]


def test_files_may_lie_elsewhere_than_on_this_machine(tmp_path: Path) -> None:
    """As in S3: names with a scheme, which only pyarrow's file system can read."""
    (tmp_path / "bucket").mkdir()
    local = fs.PyFileSystem(fs.FSSpecHandler(LocalFileSystem(auto_mkdir=True)))
    storage = Storage("s3://bucket/lake", {})
    storage.io.fs_by_scheme = lambda scheme, host: fs.SubTreeFileSystem(str(tmp_path), local)
    warehouse = IcebergWarehouse(CatalogDatabase(f"sqlite:///{tmp_path}/catalog.db"), storage, Options("iceberg+postgresql://"))
    load(warehouse, builders.page(message_id="m1", user_id="gone"), builders.identify(message_id="m2", traits={"plan": "pro"}))
    load(warehouse, builders.page(message_id="m3"))
    assert rows(warehouse, "select id from main.pages order by id") == [["m1"], ["m3"]]
    assert rows(warehouse, "select id, plan from main.users") == [["user-1", "pro"]]
    warehouse.erase([Erasure([PersonId(builders.WORKSPACE, "user_id", "gone")], NOW_US)], NOW_US)
    assert rows(warehouse, "select id from main.pages") == [["m3"]]
    names = {name for table in warehouse._lake.tables.values() for name in table.names}
    assert names <= storage.listed()
    assert all(name.startswith("s3://bucket/lake/main/") for name in names)
    warehouse.close()


def _catalog(tmp_path: Path) -> Catalog:
    """The lake as others open it."""
    return load_catalog("cdi", type="sql", uri=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake/tables")


def _scheme(database_url: str) -> str:
    """A database's URL without the driver that SQLAlchemy would take."""
    return urlsplit(database_url)._replace(scheme="postgresql").geturl()
