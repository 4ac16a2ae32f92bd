"""Where a suite is found, and in which order its services start and drain."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdi_cli.suite import SERVICES, Endpoints, SuiteNotRunning, find_suite
from cdi_cli.suite.endpoints import ServiceEndpoint, own_start
from cdi_cli.suite.services import DRAIN_ORDER, SPECS, start_waves


def endpoints(directory: Path, *, pid: int, started: float) -> Endpoints:
    service = ServiceEndpoint(7, {"grpc": "127.0.0.1:1", "http": "127.0.0.1:2"}, "collector.log", "postgresql://u:p@h/d")
    return Endpoints(pid, started, str(directory), "nats://127.0.0.1:3", "http://127.0.0.1:4", "127.0.0.1:5", 8, {"collector": service})


def test_what_is_written_is_read_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    written = endpoints(tmp_path, pid=os.getpid(), started=own_start())
    written.write()
    assert find_suite(tmp_path) == written
    assert written.http_url == "http://127.0.0.1:2"
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


def test_no_suite_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SuiteNotRunning, match="cdi up"):
        find_suite(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"services": {"collector": {"pid": 1}}}'])
def test_a_state_file_that_nobody_understands_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert Endpoints.read(tmp_path) is None


def test_a_suite_whose_process_has_ended_is_stale(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    endpoints(tmp_path, pid=ended.pid, started=own_start()).write()
    with pytest.raises(SuiteNotRunning, match="has ended"):
        find_suite(tmp_path)


def test_a_reused_process_id_is_not_the_suite(tmp_path: Path) -> None:
    endpoints(tmp_path, pid=os.getpid(), started=own_start() - 100).write()
    with pytest.raises(SuiteNotRunning, match="has ended"):
        find_suite(tmp_path)


def test_who_is_called_starts_before_and_drains_after_who_calls() -> None:
    waves = start_waves(SERVICES)
    started = {name: place for place, wave in enumerate(waves) for name in wave}
    drained = {name: place for place, step in enumerate(DRAIN_ORDER) for name in step}
    assert set(started) == set(drained) == set(SERVICES)
    for name, spec in SPECS.items():
        for callee in spec.targets.values():
            assert started[callee] < started[name]
            assert drained[callee] > drained[name]


def test_a_part_of_the_suite_starts_without_the_rest() -> None:
    assert start_waves(("enrichment", "consent")) == [["consent"], ["enrichment"]]
