"""The suite as one object: NATS, Postgres, the receiver of spans and the six services."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cdi_cli.embedded import NatsServer, PostgresServer, ProcessFailed, ServiceProcess
from cdi_cli.embedded.process import wait_until
from cdi_cli.embedded.service import DRAIN_SECONDS
from cdi_cli.suite.endpoints import Endpoints, ServiceEndpoint, admin_token, own_start, remove_state
from cdi_cli.suite.health import Health, probe
from cdi_cli.suite.services import DRAIN_ORDER, SERVICES, SPECS, start_waves
from cdi_cli.traces import SpanReceiver, SpanStore
from cdi_kernel.topology import DEFAULT_PARTITIONS

READY_SECONDS: Final = 60.0
"""How long entering the suite waits until every service is ready."""


class Suite:
    """The whole of CDI on this machine, its state in one directory.

    ``with Suite(directory) as suite:`` starts everything, waits until it is ready, and stops it in order. A second start with the
    same directory goes on with the data of the first. Start it from a thread that lives as long as the suite.

    Args:
        directory: state, logs and ``state.json``; created if missing.
        environment: extra settings by service, such as ``{"router": {"CDI_LOG_LEVEL": "DEBUG"}}``; they win.
        sample_ratio: share of events that are traced, 0 to 1.
        partitions: of a new installation; never change it for an existing directory.
        durable: False switches Postgres's fsync off: a power cut may cost data. For tests.
        services: which ones to start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        sample_ratio: float = 0.01,
        partitions: int = DEFAULT_PARTITIONS,
        durable: bool = True,
        services: tuple[str, ...] = SERVICES,
    ) -> None:
        self.directory = directory.resolve()
        self.partitions = partitions
        self.nats = NatsServer(self.directory / "nats")
        self.postgres = PostgresServer(self.directory / "postgres", durable=durable)
        self.services: dict[str, ServiceProcess] = {}
        self._extra = environment or {}
        self._sample_ratio = sample_ratio
        self._names = services
        self._receiver = SpanReceiver(self.directory / "spans.sqlite")
        self._replicas: list[ServiceProcess] = []
        self._reserved: dict[str, str] = {}

    def start(self) -> Self:
        """Start the servers, migrate the databases and start the services; returns when all have announced themselves.

        Raises:
            ProcessFailed: something did not start, or a suite runs in this directory already. What was started is stopped.
        """
        running = Endpoints.read(self.directory)
        if running is not None and running.alive():
            raise ProcessFailed(f"a suite runs in {self.directory} already (process {running.owner_pid})")
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._receiver.start()
            self.nats.start()
            self.postgres.start()
            for name in self._names:
                if database := SPECS[name].database:
                    self.postgres.create_database(database)
            for wave in start_waves(self._names):
                self._start_wave(wave)
            self.write_state()
            undo.pop_all()
        return self

    def ready(self, within: float = READY_SECONDS) -> None:
        """Wait until every service is ready.

        Raises:
            ProcessFailed: one is not, ``within`` seconds later; the text says why.
        """
        if wait_until(lambda: all(health.ready for health in self.health()), within):
            return
        late = [f"{health.service}: {dict(health.reasons)}" for health in self.health() if not health.ready]
        raise ProcessFailed(f"not ready within {within:g} s: " + "; ".join(late))

    def health(self) -> list[Health]:
        """One look at every service, in start order."""
        return [
            probe(name, process.pid if process.running else 0, process.addresses if process.started() else {})
            for name, process in self.services.items()
        ]

    def stop(self) -> None:
        """Drain the services, who lets events in first and who is called last, then stop the servers. Also after a failed start."""
        for names in DRAIN_ORDER:
            step = [process for process in (*self.services.values(), *self._replicas) if process.service in names]
            for process in step:
                if process.running:
                    process.terminate()
            for process in step:
                process.stop(DRAIN_SECONDS)
        self._replicas.clear()
        self._receiver.stop()
        self.postgres.stop()
        self.nats.stop()
        remove_state(self.directory)

    def service(self, name: str) -> ServiceProcess:
        """A service's process, to look at, kill or restart."""
        return self.services[name]

    def replicate(self, service: str, name: str) -> ServiceProcess:
        """Start one more replica of a service, with addresses of its own; it is stopped with the suite.

        Args:
            service: the service.
            name: distinguishes its log.
        """
        replica = ServiceProcess(service, self._environment(service, name), self.directory / "services", name=name)
        self._replicas.append(replica)
        return replica.start()

    @property
    def spans(self) -> SpanStore:
        """The spans that the receiver got."""
        return self._receiver.store

    @property
    def http_url(self) -> str:
        """Base URL of the collector."""
        return f"http://{self.services['collector'].addresses['http']}"

    @property
    def duckdb_file(self) -> Path:
        """The embedded warehouse. Only one process can open it: ask the loader's ``Query``."""
        return self.directory / "warehouse.duckdb"

    def grpc(self, name: str) -> str:
        """``host:port`` of a service's gRPC server."""
        return self.services[name].grpc

    @property
    def endpoints(self) -> Endpoints:
        """Where everything is."""
        return Endpoints(
            owner_pid=os.getpid(),
            owner_started=own_start(),
            directory=str(self.directory),
            nats_url=self.nats.url,
            nats_monitoring_url=self.nats.monitoring_url,
            otlp=self._receiver.address,
            partitions=self.partitions,
            services={
                name: ServiceEndpoint(process.pid, dict(process.addresses), str(process.log_file), self._database_url(name))
                for name, process in self.services.items()
            },
        )

    def write_state(self) -> None:
        """Write ``state.json`` anew, after something moved."""
        self.endpoints.write()

    def __enter__(self) -> Self:
        if not self.services:
            self.start()
        try:
            self.ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_wave(self, names: list[str]) -> None:
        """Migrate and start services side by side: most of the time goes into starting Python."""
        wave = {name: ServiceProcess(name, self._environment(name, name), self.directory / "services") for name in names}
        with ThreadPoolExecutor(max_workers=len(wave)) as pool:
            owners = [process for name, process in wave.items() if SPECS[name].database]
            list(pool.map(ServiceProcess.migrate, owners))
        for name, process in wave.items():
            self.services[name] = process
            process.launch()
        for process in wave.values():
            process.await_started()

    def _reserve(self, name: str) -> str:
        """The gRPC address of a service that starts later: a free port, which it will take."""
        if name not in self._reserved:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._reserved[name] = f"127.0.0.1:{free.getsockname()[1]}"
        return self._reserved[name]

    def _database_url(self, name: str) -> str:
        database = SPECS[name].database
        return self.postgres.url(database) if database else ""

    def _environment(self, name: str, replica: str) -> dict[str, str]:
        """The settings of a service's replica; the services that it calls run already."""
        spec = SPECS[name]
        settings = {
            "CDI_NATS_URL": self.nats.url,
            "CDI_PARTITIONS": str(self.partitions),
            "CDI_TRACE_SAMPLE_RATIO": str(self._sample_ratio),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self._receiver.address}",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            **spec.settings,
        }
        if spec.database:
            settings["CDI_DATABASE_URL"] = self._database_url(name)
        token = admin_token(self.directory)
        if name == "consent":
            settings["CDI_PRIVACY_TOKEN_HASHES"] = sha256(token.encode()).hexdigest()
        if name in {"collector", "warehouse-loader"}:
            settings["CDI_ADMIN_TOKEN_HASHES"] = sha256(token.encode()).hexdigest()
        if name == "identity":
            settings["CDI_WAREHOUSE_TOKEN"] = token
        if name == "collector":
            settings["CDI_SPOOL_DIRECTORY"] = str(self.directory / "spool" / replica)
        if name == "warehouse-loader":
            settings["CDI_DUCKDB_PATH"] = str(self.duckdb_file)
        for setting, callee in spec.targets.items():
            if callee in self.services:
                settings[setting] = self.services[callee].grpc
        for setting, callee in spec.reserved.items():
            if callee in self._names:
                settings[setting] = self._reserve(callee)
        if name == replica and name in self._reserved:
            settings["CDI_GRPC_ADDRESS"] = self._reserved[name]
        return settings | dict(self._extra.get(name, {}))
