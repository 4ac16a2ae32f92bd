"""Child processes: nothing outlives its parent, failures carry the log, an ordinary user can run the servers."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cdi_cli.embedded import ChildProcess, ProcessFailed
from cdi_testing import eventually_sync

START_SERVERS = """
import json, pathlib, sys
from cdi_cli.embedded import NatsServer, PostgresServer
folder = pathlib.Path(sys.argv[1])
nats, postgres = NatsServer(folder / "nats").start(), PostgresServer(folder / "postgres", durable=False).start()
postgres.create_database("mine")
print(json.dumps([nats.process.pid, postgres.process.pid]), flush=True)
sys.stdin.read()
nats.stop(); postgres.stop()
"""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_kill_9_of_the_parent_leaves_nothing(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", START_SERVERS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        pids = json.loads(parent.stdout.readline())
        backends = [child.pid for child in psutil.Process(pids[1]).children()]
        assert all(alive(pid) for pid in pids)
        parent.kill()
        parent.wait()
    eventually_sync(lambda: not any(alive(pid) for pid in [*pids, *backends]))


def test_servers_run_as_an_ordinary_user(tmp_path: Path) -> None:
    """Root becomes an ordinary user inside a user namespace, where its own files stay readable."""
    ordinary = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*ordinary, sys.executable, "-c", START_SERVERS, str(tmp_path)],
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert not any(alive(pid) for pid in json.loads(result.stdout))


def test_early_exit_fails_with_code_and_log(tmp_path: Path) -> None:
    child = ChildProcess("short", [sys.executable, "-c", "import sys; sys.exit('no such luck')"], tmp_path / "log")
    child.start()
    with pytest.raises(ProcessFailed, match=r"short exited with code 1\nno such luck"):
        child.await_ready(lambda: False, within=10)


def test_deadline_kills(tmp_path: Path) -> None:
    child = ChildProcess("slow", ["sleep", "60"], tmp_path / "log")
    child.start()
    with pytest.raises(ProcessFailed, match=r"slow was not ready within 0\.1 s"):
        child.await_ready(lambda: False, within=0.1)
    assert child.exit_code == -signal.SIGKILL


def test_stop_kills_what_ignores_the_signal(tmp_path: Path) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    child = ChildProcess("deaf", [shutil.which("bash") or "bash", "-c", script], tmp_path / "log")
    child.start()
    child.await_ready(lambda: "up" in child.log_tail(), within=10)
    child.stop(signal.SIGTERM, within=0.2)
    assert child.exit_code == -signal.SIGKILL
