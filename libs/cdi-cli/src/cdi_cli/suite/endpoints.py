"""Where a running suite is: written to ``state.json`` by the process that started it, read by every other command."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

STATE_FILE: Final = "state.json"
TOKEN_FILE: Final = "admin-token"


class SuiteNotRunning(RuntimeError):
    """No suite runs in the directory."""


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One service.

    Attributes:
        pid: process id.
        addresses: announced ``host:port`` by kind: ``grpc``, ``ops``, and ``http`` for the collector.
        log: path of its log.
        database: URL of its database, with the password; empty when it has none.
    """

    pid: int
    addresses: Mapping[str, str]
    log: str
    database: str


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A running suite, JSON-ready.

    Attributes:
        owner_pid: the process that started it.
        owner_started: that process's start, Unix seconds, so that a reused pid is not taken for it.
        directory: absolute path of the state.
        nats_url: the bus.
        nats_monitoring_url: the bus's own monitoring.
        otlp: ``host:port`` of the receiver of spans.
        partitions: partitions of the installation.
        services: the services by name.
    """

    owner_pid: int
    owner_started: float
    directory: str
    nats_url: str
    nats_monitoring_url: str
    otlp: str
    partitions: int
    services: Mapping[str, ServiceEndpoint]

    @property
    def http_url(self) -> str:
        """Base URL of the collector."""
        return f"http://{self.services['collector'].addresses['http']}"

    @property
    def spans_file(self) -> Path:
        """The receiver's database of spans."""
        return Path(self.directory) / "spans.sqlite"

    @property
    def admin_token(self) -> str:
        """What administers sources, warehouses and clean rooms, asks the warehouse, and makes privacy requests."""
        return admin_token(Path(self.directory))

    def grpc(self, service: str) -> str:
        """``host:port`` of a service's gRPC server."""
        return self.services[service].addresses["grpc"]

    def write(self) -> None:
        """Write ``state.json``, readable by its owner only: it holds the database passwords."""
        target = Path(self.directory) / STATE_FILE
        draft = target.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(target)

    @classmethod
    def read(cls, directory: Path) -> Endpoints | None:
        """What ``state.json`` says, whether or not it is still true; ``None`` when there is none or it is not readable."""
        try:
            values = json.loads((directory / STATE_FILE).read_text())
            values["services"] = {name: ServiceEndpoint(**service) for name, service in values["services"].items()}
            return cls(**values)
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return None

    def alive(self) -> bool:
        """Whether the process that wrote it still runs."""
        try:
            return abs(psutil.Process(self.owner_pid).create_time() - self.owner_started) < 1.0
        except psutil.Error:
            return False


def admin_token(directory: Path) -> str:
    """The token of the suite in a directory, made when it is first asked for; its file is readable by its owner only."""
    file = directory / TOKEN_FILE
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError:
        pass
    return file.read_text().strip()


def find_suite(directory: Path) -> Endpoints:
    """The suite that runs in ``directory``.

    Raises:
        SuiteNotRunning: there is none; the text says what to do.
    """
    found = Endpoints.read(directory)
    if found is None:
        raise SuiteNotRunning(f"no suite runs in {directory}: start one with `cdi up --directory {directory}`")
    if not found.alive():
        raise SuiteNotRunning(f"the suite in {directory} has ended (process {found.owner_pid}): start it again with `cdi up`")
    return found


def remove_state(directory: Path) -> None:
    """Forget a suite that this process ran."""
    (directory / STATE_FILE).unlink(missing_ok=True)


def own_start() -> float:
    """When this process started, Unix seconds."""
    return psutil.Process(os.getpid()).create_time()
