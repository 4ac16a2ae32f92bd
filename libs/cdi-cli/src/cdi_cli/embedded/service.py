"""One service of CDI as a child process: ``python -m cdi_<service>``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cdi_cli.embedded.process import START_SECONDS, ChildProcess, ProcessFailed

DRAIN_SECONDS = 30.0
"""How long a stopped service may drain before it is killed; above the services' own default of 20 s."""


class ServiceProcess:
    """A running service and the addresses that it announced.

    After its first start the announced addresses are kept, so that peers find a restarted service where it was.

    Args:
        service: name as in the repository, such as ``"warehouse-loader"``.
        environment: its ``CDI_*`` settings. ``CDI_*`` names of this process are not passed on: a service refuses names
            that it does not know.
        directory: receives the log and the announcement.
        name: distinguishes replicas in ``directory``; defaults to ``service``.
    """

    def __init__(self, service: str, environment: Mapping[str, str], directory: Path, *, name: str | None = None) -> None:
        self.service = service
        self.name = name or service
        self.environment = dict(environment)
        self.addresses: dict[str, str] = {}
        self.instance = ""
        self._module = f"cdi_{service.replace('-', '_')}"
        self._output_file = directory / f"{self.name}.out"
        self._log_file = directory / f"{self.name}.log"
        self.process = self._child()

    @property
    def pid(self) -> int:
        """Process id of the running or last process."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists and has not ended."""
        return self.process.running

    @property
    def log_file(self) -> Path:
        """Structured log of all runs."""
        return self._log_file

    @property
    def grpc(self) -> str:
        """``host:port`` of its gRPC server."""
        return self.addresses["grpc"]

    @property
    def ops(self) -> str:
        """``host:port`` of /livez, /readyz and /metrics."""
        return self.addresses["ops"]

    def migrate(self, within: float = START_SECONDS) -> None:
        """Bring its database to the newest migration.

        Raises:
            ProcessFailed: the migration failed.
        """
        command = [sys.executable, "-m", self._module, "migrate"]
        try:
            result = subprocess.run(command, env=self._whole_environment(), capture_output=True, text=True, check=False, timeout=within)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} migrate still runs after {within:g} s") from None
        if result.returncode != 0:
            raise ProcessFailed(f"{self.name} migrate exited with code {result.returncode}\n{result.stderr[-4000:]}")

    def start(self, within: float = START_SECONDS) -> Self:
        """Start the service and return when it has announced its addresses.

        Raises:
            ProcessFailed: it ended or announced nothing within ``within`` seconds.
        """
        self.launch()
        return self.await_started(within)

    def launch(self) -> None:
        """Start the process and return at once, so that several services start side by side."""
        self._output_file.parent.mkdir(parents=True, exist_ok=True)
        self.process = self._child()
        self._output_file.unlink(missing_ok=True)
        self.process.start()

    def await_started(self, within: float = START_SECONDS) -> Self:
        """Wait for the announcement of a launched service.

        Raises:
            ProcessFailed: it ended or announced nothing within ``within`` seconds.
        """
        self.process.await_ready(self.started, within)
        return self

    def started(self) -> bool:
        """Whether a launched service has announced its addresses; they are known from then on."""
        announcement = self._announcement()
        if announcement is None:
            return False
        announcement.pop("service", None)
        self.instance = announcement.pop("instance", "")
        self.addresses = announcement
        for name, address in self.addresses.items():
            self.environment[f"CDI_{name.upper()}_ADDRESS"] = address
        return True

    def terminate(self) -> None:
        """Ask the service to drain and end (SIGTERM); returns at once."""
        self.process.send(signal.SIGTERM)

    def kill(self) -> None:
        """End the service at once, as a crash would (SIGKILL)."""
        self.process.kill()

    def wait(self, within: float = DRAIN_SECONDS) -> int:
        """Wait for its end and return the exit code.

        Raises:
            ProcessFailed: it still runs after ``within`` seconds.
        """
        return self.process.wait(within)

    def stop(self, within: float = DRAIN_SECONDS) -> None:
        """Drain and end; killed when that takes longer than ``within`` seconds."""
        self.process.stop(signal.SIGTERM, within)

    def restart(self) -> None:
        """Stop and start at the same addresses."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _child(self) -> ChildProcess:
        return ChildProcess(
            self.name,
            [sys.executable, "-m", self._module],
            self._log_file,
            output_file=self._output_file,
            environment=self._whole_environment(),
        )

    def _whole_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CDI_")}
        return inherited | self.environment

    def _announcement(self) -> dict[str, str] | None:
        """The one line of JSON that a service writes to standard output once it serves; None before that."""
        try:
            line, newline, _ = self._output_file.read_text().partition("\n")
        except FileNotFoundError:
            return None
        if not newline:
            return None
        announcement = json.loads(line)
        return {str(key): str(value) for key, value in announcement.items()}
