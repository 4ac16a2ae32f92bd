"""A rebuild that dies between any two of its transactions, and goes on in a new process: every row is there once."""

import shutil
from pathlib import Path
from typing import Any

from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_testing import builders
from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.batches import Batch
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.ports import Warehouse

from . import engines
from .rebuilds import Mortal, bring, finished, loading, opened, rebuilding
from .test_rebuilding import SIDE

TABLES = ("tracks", "bought", *SIDE)
MESSAGES = (1, 2, 300)
"""So far apart that they are not brought in one window."""


async def held(directory: Path) -> Mortal:
    return await opened(engines.duckdb(directory), archives=True)


async def fill(access: Access) -> None:
    """Loads all kinds of messages, as they would come from the streams."""
    await bring(access, *MESSAGES)
    timeless = RejectedEvent(rejection_id="timeless", workspace_id=builders.WORKSPACE)
    await loading(access).rejected([Batch(0, 3_000, 0, [timeless])])
    await access.write(lambda held: held.put_document(Document(builders.WORKSPACE, "late", (), "late", 1)))
    await access.refresh_targets()


def rows(held: Warehouse, schema: str) -> dict[str, list[Any]]:
    key = {"rejected_events": "rejection_id", "tracks": "id", "bought": "id"}
    names = {table: key.get(table, "seq") for table in TABLES}
    return {table: engines.rows(held, f"select {name} from {schema}.{table} order by 1") for table, name in names.items()}


async def test_whenever_a_rebuild_dies_it_goes_on_and_every_row_is_there_once(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    access = await held(whole)
    await fill(access)
    expected = await access.read(lambda held: rows(held, "main"))
    assert [len(found) for found in expected.values()] == [3, 3, 3, 6, 6, 4]
    access.close()
    died = 0
    for lives in range(1, 200):
        found, has_died = await rebuilt(whole, tmp_path / str(lives), lives)
        assert found == expected, lives
        died += has_died
        if not has_died:
            break
    assert died > 15


async def rebuilt(whole: Path, copy: Path, lives: int) -> tuple[dict[str, list[Any]], bool]:
    """What a rebuild leaves that dies before its transaction number ``lives``, once the next process is through; and whether it died."""
    shutil.copytree(whole, copy)
    access = await held(copy)
    await rebuilding(access).start(builders.WORKSPACE, "late", "")
    access.lives = lives
    has_died = await finished(access)
    access.close()
    access = await held(copy)
    await finished(access)
    found = await access.read(lambda held: rows(held, "late"))
    access.close()
    shutil.rmtree(copy)
    return found, has_died
