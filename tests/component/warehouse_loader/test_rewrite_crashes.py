"""kill -9 while the DuckDB file is written anew after an erasure: done in the end, nothing of the person is left, all of others is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdi.consent.v1.consent_service_pb2_grpc import add_ConsentServiceServicer_to_server
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.faults import Unavailable
from cdi_runtime.bus import Bus
from cdi_testing import builders, eventually
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell

TOKEN = "planted-91be"
SERVICE = "warehouse-loader"
FILLER = 2_000_000
"""Rows that make the copy take seconds, so that a kill meets it."""


@pytest.fixture
async def side() -> AsyncIterator[tuple[PrivacySide, str]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(privacy_side((add_ConsentServiceServicer_to_server, Consents())))


async def test_killed_while_it_writes_the_file_anew(
    start_loader: Any, enrichment: Any, bus: Bus, ask: Any, side: tuple[PrivacySide, str], tmp_path: Path
) -> None:
    consent, address = side
    loader: ServiceProcess = start_loader(CDI_CONSENT_TARGET=address, CDI_REWRITE_AFTER_SECONDS="0")
    client = await ask(loader)
    await enrichment.publish([_seen(f"{TOKEN}-{number}", f"{TOKEN}-user") for number in range(50)])
    await enrichment.publish([_seen(f"other-{number}", "other") for number in range(50)])
    await client.loaded(100)
    await asyncio.to_thread(loader.stop)
    file = tmp_path / "warehouse.duckdb"
    await asyncio.to_thread(_fill, file)
    assert TOKEN.encode() in file.read_bytes()
    await asyncio.to_thread(loader.start)

    erasing = order(SERVICE, ("user_id", f"{TOKEN}-user"))
    await tell(bus, erasing)
    draft, spilled = file.with_name(file.name + ".new"), file.with_name(file.name + ".tmp")
    sizes = [0, 1, 10_000_000]
    for number, size in enumerate(sizes):
        await eventually(lambda size=size: draft.exists() and draft.stat().st_size >= size, within=60)
        await asyncio.to_thread(loader.kill)
        assert draft.exists(), "killed too late: the copy was done"
        assert TOKEN.encode() in file.read_bytes()
        await enrichment.publish([_seen(f"late-{number}", "other")])
        spilled.mkdir(exist_ok=True)
        (spilled / "duckdb_temp_storage-0.tmp").write_bytes(TOKEN.encode())
        await asyncio.to_thread(loader.start)
    steps = await consent.reported(erasing, SERVICE, within=60)
    assert {step.status for step in steps.values()} == {7}
    await eventually(lambda: not draft.exists() and _left(tmp_path) == [], within=120)
    client = await ask(loader)
    await client.loaded(100 + len(sizes), within=60)
    await eventually(lambda: _is(client, "select count(*), count(distinct id) from seen", [[50 + len(sizes)] * 2]), within=60)
    assert await client.rows("select count(*), sum(number) from filler") == [[FILLER, FILLER * (FILLER - 1) // 2]]
    # Whatever had been counted was counted in the transaction that erased, so the report of a process that died may say less, never more.
    assert sum(step.count for store, step in steps.items() if store.endswith(".seen")) in (0, 50)
    await asyncio.to_thread(loader.stop)
    assert _left(tmp_path) == []


def _seen(message_id: str, user: str) -> Any:
    return builders.track("Seen", message_id=message_id, user_id=user)


def _fill(file: Path) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute(f"create table filler as select range as number, md5(range::varchar) as digest from range({FILLER})")


def _left(directory: Path) -> list[str]:
    """The files of the warehouse that hold the token."""
    files = [file for file in directory.rglob("*") if ".duckdb" in str(file.relative_to(directory)) and file.is_file()]
    assert files
    return [file.name for file in files if TOKEN.encode() in _content(file)]


def _content(file: Path) -> bytes:
    """Of a file that may go meanwhile."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


async def _is(client: Any, sql: str, wanted: object) -> bool:
    try:
        return bool(await client.rows(sql) == wanted)
    except Unavailable:
        return False
