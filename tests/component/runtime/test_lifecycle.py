"""The life of a service process, from the command line to its exit code."""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cdi_runtime.store import Database, verify
from cdi_testing import eventually
from cdi_testing.eventually import WITHIN_SECONDS

SERVICE = Path(__file__).with_name("example_service.py")


class Running:
    """One process of the example service."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def announcement(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(await asyncio.wait_for(self.process.stdout.readline(), WITHIN_SECONDS))
        return line

    async def ended(self) -> tuple[int, str]:
        _, errors = await asyncio.wait_for(self.process.communicate(), WITHIN_SECONDS)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def launch(*arguments: str, **environment: str) -> Running:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CDI_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SERVICE),
            *arguments,
            env={**clean, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return Running(process)

    yield launch
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def get(address: str, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_it_announces_serves_drains_and_ends_well(start: Start, migrated_url: str) -> None:
    running = await start(CDI_DATABASE_URL=migrated_url)
    line = await running.announcement()
    assert {"service", "instance", "ops", "grpc", "http"} == set(line)
    assert (await get(line["ops"], "/livez"))[0] == 200
    await eventually(lambda: is_ready(line["ops"]))
    assert "cdi_process_resident_memory_bytes" in (await get(line["ops"], "/metrics"))[1]
    assert (await get(line["ops"], "/elsewhere"))[0] == 404
    running.process.send_signal(signal.SIGTERM)
    code, errors = await running.ended()
    assert code == 0
    assert [json.loads(line)["event"] for line in errors.splitlines()] == [
        "service.started",
        "service.draining",
        "service.stopped",
    ]


async def is_ready(ops: str) -> bool:
    return (await get(ops, "/readyz")) == (200, "{}")


async def test_a_dependency_that_goes_away_shows_in_readiness(start: Start, migrated_url: str) -> None:
    running = await start(CDI_DATABASE_URL=migrated_url)
    line = await running.announcement()
    await eventually(lambda: is_ready(line["ops"]))
    await drop(migrated_url)

    async def says_why() -> bool:
        status, body = await get(line["ops"], "/readyz")
        return status == 503 and set(json.loads(body)) == {"database"}

    await eventually(says_why)
    assert (await get(line["ops"], "/livez"))[0] == 200


async def drop(url: str) -> None:
    """Takes a database away from under the service."""
    address, _, name = url.rpartition("/")
    async with Database.connect(f"{address}/postgres") as server, server.session() as connection:
        await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


async def test_an_old_schema_is_refused_until_migrate_ran(start: Start, database_url: str, migrations: str) -> None:
    code, errors = await (await start(CDI_DATABASE_URL=database_url)).ended()
    assert code == 3
    assert "run python -m example_migrations migrate" in errors
    code, _ = await (await start("migrate", CDI_DATABASE_URL=database_url)).ended()
    assert code == 0
    await verify(database_url, migrations)


async def test_a_failed_start_is_exit_code_1_and_says_why(start: Start, migrated_url: str) -> None:
    code, errors = await (await start(CDI_DATABASE_URL=migrated_url, CDI_BEHAVIOUR="fails-start")).ended()
    assert code == 1
    assert json.loads(errors.splitlines()[-1])["text"] == "no such thing"


async def test_a_failed_task_drains_and_is_exit_code_1(start: Start, migrated_url: str) -> None:
    code, errors = await (await start(CDI_DATABASE_URL=migrated_url, CDI_BEHAVIOUR="fails-later")).ended()
    assert code == 1
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == ["service.started", "service.task_failed", "service.draining", "service.stopped"]
    assert "someone" not in errors


async def test_a_start_can_be_given_up(start: Start, migrated_url: str) -> None:
    running = await start(CDI_DATABASE_URL=migrated_url, CDI_BEHAVIOUR="slow-start", CDI_OPS_ADDRESS="127.0.0.1:0")
    await eventually(lambda: has_signal_handler(running.process.pid))
    running.process.send_signal(signal.SIGTERM)
    assert (await running.ended())[0] == 0


def has_signal_handler(pid: int) -> bool:
    """Whether a process catches SIGTERM already (the mask ``SigCgt`` of its status)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_a_drain_that_takes_too_long_is_cut_off(start: Start, migrated_url: str) -> None:
    running = await start(CDI_DATABASE_URL=migrated_url, CDI_BEHAVIOUR="slow-drain", CDI_DRAIN_SECONDS="0.3")
    await running.announcement()
    running.process.send_signal(signal.SIGTERM)
    code, errors = await running.ended()
    assert code == 0
    assert "service.drain_timed_out" in errors


async def test_a_second_signal_ends_at_once(start: Start, migrated_url: str) -> None:
    running = await start(CDI_DATABASE_URL=migrated_url, CDI_BEHAVIOUR="slow-drain")
    line = await running.announcement()
    running.process.send_signal(signal.SIGTERM)
    await eventually(lambda: is_stopping(line["ops"]))
    running.process.send_signal(signal.SIGTERM)
    assert (await running.ended())[0] == 128 + signal.SIGTERM


async def is_stopping(ops: str) -> bool:
    status, body = await get(ops, "/readyz")
    return status == 503 and json.loads(body).get("service") == "stopping"
