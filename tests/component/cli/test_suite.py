"""The suite as one object: what it starts, finds, restarts and leaves behind. One service stands for all six."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cdi_cli.embedded import ProcessFailed
from cdi_cli.suite import Endpoints, Suite, Supervisor, find_suite
from cdi_testing import eventually_sync

PART = ("consent",)

OWNER = """
import signal, sys
from pathlib import Path
from cdi_cli.suite import Suite

with Suite(Path(sys.argv[1]), services=tuple(sys.argv[2:])):
    print("up", flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Running and ready at the end of every test."""
    with Suite(tmp_path_factory.mktemp("suite"), durable=False, services=PART) as suite:
        yield suite


def processes_of(directory: Path) -> list[psutil.Process]:
    """Children of this process, dead or alive, that belong to a suite: their command or log names its directory."""
    return [child for child in psutil.Process().children(recursive=True) if str(directory) in " ".join(open_files(child))]


def open_files(process: psutil.Process) -> list[str]:
    try:
        return [*process.cmdline(), *(file.path for file in process.open_files())]
    except psutil.Error:
        return []


def test_a_stopped_suite_leaves_no_process_and_goes_on_with_its_data(tmp_path: Path) -> None:
    suite = Suite(tmp_path, durable=False, services=PART)
    with suite:
        assert [health.service for health in suite.health()] == list(PART)
        assert all(health.ready and health.rss_bytes > 1e6 for health in suite.health())
        assert find_suite(tmp_path).grpc("consent") == suite.grpc("consent")
        replica = suite.replicate("consent", "consent-2")
        assert replica.grpc != suite.grpc("consent")
        assert len(processes_of(tmp_path)) >= 4
        suite.postgres.execute("CREATE TABLE kept ()", "cdi_consent")
    assert processes_of(tmp_path) == []
    assert Endpoints.read(tmp_path) is None
    with Suite(tmp_path, durable=False, services=PART) as again:
        again.postgres.execute("SELECT * FROM kept", "cdi_consent")


def test_a_second_suite_in_the_same_directory_is_refused_and_harms_nothing(suite: Suite) -> None:
    with pytest.raises(ProcessFailed, match=r"runs in .* already"):
        Suite(suite.directory, services=PART).start()
    assert all(health.ready for health in suite.health())
    assert find_suite(suite.directory).owner_pid == os.getpid()


def test_settings_of_one_service_reach_it_and_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    broken = Suite(tmp_path, environment={"consent": {"CDI_NO_SUCH_SETTING": "1"}}, durable=False, services=PART)
    with pytest.raises(ProcessFailed, match="CDI_NO_SUCH_SETTING"):
        broken.start()
    assert processes_of(tmp_path) == []


def test_a_killed_service_stays_down_until_it_is_restarted_where_it_was(suite: Suite) -> None:
    address = suite.grpc("consent")
    suite.service("consent").kill()
    (consent,) = suite.health()
    assert (consent.ready, consent.pid) == (False, 0)
    suite.service("consent").start()
    suite.ready()
    assert suite.grpc("consent") == address


def test_the_supervisor_restarts_what_has_ended_and_writes_its_new_process_down(suite: Suite) -> None:
    supervisor = Supervisor(suite)
    assert supervisor.tick() == []
    suite.service("consent").kill()
    told: list[str] = []

    def runs_again() -> bool:
        told.extend(supervisor.tick())
        return any("runs again" in line for line in told)

    eventually_sync(runs_again, within=60)
    assert "ended with exit code -9" in told[0]
    assert supervisor.restarts == {"consent": 1}
    assert find_suite(suite.directory).services["consent"].pid == suite.service("consent").pid
    suite.ready()


def test_services_die_with_a_killed_suite(tmp_path: Path) -> None:
    """``cdi up`` killed with SIGKILL leaves nothing either: the kernel ends the children."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), *PART], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    pids = [service.pid for service in find_suite(tmp_path).services.values()]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    eventually_sync(lambda: not any(psutil.pid_exists(pid) for pid in pids))
