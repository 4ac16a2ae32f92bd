"""The emulator of BigQuery as a process of the test run, where it is installed. Each test has a project of its own there."""

import itertools
import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from cdi_testing.eventually import eventually_sync

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("BQEMULATOR_PYTHON", ROOT / ".venv-bigquery" / "bin" / "python"))
MISSING = "no emulator of BigQuery here: make bigquery-emulator (an environment of its own, 400 MB)"
_projects = itertools.count(1)


class BigQueryEmulator:
    """The process.

    Args:
        directory: for its log.
    """

    def __init__(self, directory: Path) -> None:
        self.port, grpc = _free_ports()
        self._log = (directory / "bqemulator.log").open("wb")
        command = [PYTHON, Path(__file__).with_name("bqemulator_main.py"), "start"]
        ports = ["--rest-port", str(self.port), "--grpc-port", str(grpc), "--log-level", "error"]
        self._process = subprocess.Popen([*command, *ports], stdout=self._log, stderr=self._log)
        eventually_sync(self._answers, within=60.0)

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def new_project(self) -> str:
        """The URL of a project that nobody has used."""
        return f"bigquery://project-{next(_projects)}/main?location=EU&endpoint={self.endpoint}"

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the emulator ended by itself"
        try:
            with urllib.request.urlopen(f"{self.endpoint}/bigquery/v2/projects/nobody/datasets") as answer:
                return isinstance(json.load(answer), dict)
        except (URLError, ConnectionError):
            return False


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryEmulator]:
    if not PYTHON.exists():
        pytest.skip(MISSING)
    pytest.importorskip("google.cloud.bigquery", reason="no client of BigQuery here: pip install 'cdi-warehouse-loader[bigquery-test]'")
    server = BigQueryEmulator(tmp_path_factory.mktemp("bigquery"))
    yield server
    server.stop()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
