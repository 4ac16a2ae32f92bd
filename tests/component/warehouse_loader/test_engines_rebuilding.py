"""What every engine has to do when tables, or a whole new warehouse, are rebuilt: as the archive's, and as the one that is filled."""

from pathlib import Path
from typing import Any

from cdi_testing import builders
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import PROFILE_ID, Erasure, PersonId
from cdi_warehouse_loader.domain.withholding import Needs, NeedsOf

from . import engines
from .engines import Place
from .rebuilds import bring, column, finished, opened, rebuilding, state

ODD_NAMES = ("Bought", "Größe", "Rows")
"""The last two need quotes in some engine, as names of tables."""

ODD_WORKSPACE = 'o\'neil \\ "sons" \\'
"""As an id may be: quotes and backslashes mean something in a statement."""


def of(person: int, workspace_id: str = builders.WORKSPACE) -> Erasure:
    """The erasure of one of the people, from after all that ever came."""
    ids = [PersonId(workspace_id, "user_id", f"u{person}"), PersonId(workspace_id, PROFILE_ID, f"p{person}")]
    return Erasure(ids, engines.NOW_US)


async def test_a_warehouse_and_its_tables_are_rebuilt_from_their_own_engine_to_what_they_were(place: Place) -> None:
    access = await opened(place, archives=True)
    await bring(access, 1, 2, 3, workspace_id=ODD_WORKSPACE, names=["Bought", "Seen", "Rows"] if place.plain else ODD_NAMES)
    before, counts = await state(access), await access.read(lambda held: dict(held.counts()))
    assert {table: len(rows) for table, rows in before.items()} == {
        "tracks": 9, "bought": 3, "identifies": 3, "users": 3, "accounts": 1, "discards": 3,
        "id_graph_updates": 3, "external_id_mapping_updates": 6, "profile_traits_updates": 6, "rejected_events": 3,
    }  # fmt: skip
    for table in ("", "bought", "profile_traits_updates"):
        begun = await rebuilding(access).start(ODD_WORKSPACE, "main", table)
        assert (begun.number, begun.messages[1]) == (1, 3)
        assert await column(access, f"select count(*) from main.{table or 'users'}") == [0]
        await finished(access)
        assert await state(access) == before
    await access.write(lambda held: held.erase([of(1, ODD_WORKSPACE)], engines.NOW_US))
    without = await state(access)
    assert [len(without[table]) for table in ("tracks", "users", "id_graph_updates", "rejected_events")] == [6, 2, 2, 2]
    assert await column(access, "select count(*) from cdi_archive.events") == [10]
    assert (await rebuilding(access).start(ODD_WORKSPACE, "main", "")).number == 2
    await finished(access)
    assert await state(access) == without
    assert await access.read(lambda held: dict(held.counts())) == counts
    access.close()


async def test_a_new_warehouse_gets_every_row_once_from_archive_and_stream_however_often_it_dies(place: Place, tmp_path: Path) -> None:
    lake = engines.duckdb(tmp_path / "archive")
    source = await opened(lake, archives=True)
    await bring(source, 1, 2, 3, 300, 301)
    access = await opened(place)
    await access.write(lambda held: held.put_document(Document(builders.WORKSPACE, "late", (), "late", 1)))
    await access.refresh_targets()
    await rebuilding(access, source).start(builders.WORKSPACE, "late", "")
    arrived, died, lives = 301, 0, 3
    access.lives = lives
    while await finished(access, source):
        died += 1
        access.close()
        arrived += 1
        await bring(source, arrived)
        access = await opened(place)
        await bring(access, arrived)  # as the stream does
        access.lives = lives = lives + 4
    assert died >= 3
    access.lives = None
    keys = {"tracks": "id", "bought": "id", "identifies": "id", "id_graph_updates": "seq", "rejected_events": "rejection_id"}
    for table, key in keys.items():
        found = await column(access, f"select {key} from late.{table}")
        assert found == await column(source, f"select {key} from main.{table}"), table
        assert len(found) == 5 + died
    assert await column(access, "select plan from late.users") == await column(source, "select plan from main.users")
    for each in (access, source):
        each.close()
    lake.close()


class Told:
    """``PurposeReader`` of what one warehouse needs."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs

    async def needs(self, workspace_id: str) -> NeedsOf:
        return {"main": self._needs}


async def test_who_was_erased_and_what_consent_keeps_out_by_now_does_not_come_back(place: Place, tmp_path: Path) -> None:
    """The archive is behind with an order, as one is that was restored from a backup, and has what came before the purposes changed."""
    lake = engines.duckdb(tmp_path / "archive")
    source, access = await opened(lake, archives=True), await opened(place)
    for each in (source, access):
        await bring(each, 1, 2, 3)
    await access.write(lambda held: held.erase([of(1)], engines.NOW_US))
    columns = Needs(frozenset(), (("traits.email", frozenset({"ads"})),))
    rows = Needs(frozenset({"ads"}), ())
    found: list[Any] = []
    for needs in (columns, rows):
        await rebuilding(access, source).start(builders.WORKSPACE, "main", "")
        await finished(access, source, Told(needs))
        found.append(await state(access))
    narrow, few = found
    assert [len(narrow[table]) for table in ("tracks", "identifies", "users", "rejected_events")] == [2, 2, 2, 2]
    assert ["@example.com" in row for row in narrow["identifies"]] == [True, False]
    assert [len(narrow[table]) for table in ("external_id_mapping_updates", "profile_traits_updates", "id_graph_updates")] == [2, 2, 2]
    assert [len(few[table]) for table in ("tracks", "identifies", "users", "rejected_events")] == [1, 1, 1, 2]
    assert [len(few[table]) for table in ("external_id_mapping_updates", "profile_traits_updates", "id_graph_updates")] == [0, 0, 2]
    assert not any("'u1'" in row for tables in found for rows in tables.values() for row in rows)
    for each in (access, source):
        each.close()
    lake.close()
