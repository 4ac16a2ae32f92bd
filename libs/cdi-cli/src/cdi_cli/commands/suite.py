"""`cdi up`: the suite in the foreground."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdi_cli.suite import Health, Suite, Supervisor
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, console, reported
from cdi_kernel.topology import DEFAULT_PARTITIONS

LOOK_SECONDS: Final = 1.0
"""How often the services are looked at."""

STEP_SECONDS: Final = 0.1
"""How soon a signal or the end of a service is noticed."""

Port = Annotated[int, typer.Option("--port", help="HTTP port of the collector; 0 takes a free one.")]
SampleRatio = Annotated[float, typer.Option("--sample-ratio", min=0.0, max=1.0, help="Share of events that are traced.")]
Partitions = Annotated[int, typer.Option("--partitions", min=1, max=1024, help="Of a new directory; never change it later.")]


class _Stop:
    """Whether the person or the system has asked for the end."""

    asked = False


@reported
def up(
    directory: Directory = DEFAULT_DIRECTORY, port: Port = 0, sample_ratio: SampleRatio = 0.01, partitions: Partitions = DEFAULT_PARTITIONS
) -> None:
    """Run NATS, Postgres and the six services until Ctrl-C; what has crashed is started again."""
    environment = {"collector": {"CDI_HTTP_ADDRESS": f"127.0.0.1:{port}"}} if port else {}
    suite = Suite(directory, environment=environment, sample_ratio=sample_ratio, partitions=partitions)
    with stopping() as stop:
        console.print(f"starting CDI in {suite.directory}", markup=False)
        suite.start()
        try:
            console.print(f"collector: {suite.http_url}   bus: {suite.nats.url}   spans: {suite.endpoints.otlp}", markup=False)
            watch(suite, stop)
        finally:
            console.print("draining")
            suite.stop()
            console.print("stopped")


@contextmanager
def stopping() -> Iterator[_Stop]:
    """Takes the first SIGINT or SIGTERM as a wish, the second as an order, for the time of the block."""
    stop = _Stop()

    def asked(number: int, _: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(suite: Suite, stop: _Stop) -> None:
    """Show how the services are, and start again what has ended, until the end is asked for."""
    supervisor = Supervisor(suite)
    if not console.is_terminal:
        _watch_plainly(suite, supervisor, stop)
        return
    with Live(console=console, auto_refresh=False) as live:
        while not stop.asked:
            live.update(_table(suite.health(), supervisor), refresh=True)
            _look_after(supervisor, stop)


def _watch_plainly(suite: Suite, supervisor: Supervisor, stop: _Stop) -> None:
    """One line per change."""
    shown: dict[str, str] = {}
    while not stop.asked:
        for health in suite.health():
            line = f"{health.service}: {_state(health)}"
            if shown.get(health.service) != line:
                shown[health.service] = line
                console.print(f"{line} (pid {health.pid}, {health.address})", markup=False, soft_wrap=True)
        _look_after(supervisor, stop)


def _look_after(supervisor: Supervisor, stop: _Stop) -> None:
    """Pass the time until the next look."""
    until = time.monotonic() + LOOK_SECONDS
    while not stop.asked and time.monotonic() < until:
        for line in supervisor.tick():
            console.print(line, markup=False, soft_wrap=True)
        time.sleep(STEP_SECONDS)


def _table(healths: list[Health], supervisor: Supervisor) -> Table:
    table = Table("service", "pid", "state", "rss MB", "restarts", "address", title="CDI – Ctrl-C drains and stops", title_justify="left")
    for health in healths:
        state = Text(_state(health), style="green" if health.ready else "red")
        memory = f"{health.rss_bytes / 1e6:.0f}"
        table.add_row(health.service, str(health.pid), state, memory, str(supervisor.restarts[health.service]), health.address)
    return table


def _state(health: Health) -> str:
    return "ready" if health.ready else "; ".join(f"{check}: {reason}" for check, reason in health.reasons.items())
