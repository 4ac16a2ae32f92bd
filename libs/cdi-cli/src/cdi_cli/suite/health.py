"""How a service is: its process, its memory, and what /readyz says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

READY_SECONDS: Final = 1.0
"""How long /readyz may take before the service counts as not ready."""


@dataclass(frozen=True, slots=True)
class Health:
    """One look at one service.

    Attributes:
        service: its name.
        pid: its process; 0 when it does not run.
        reasons: why it is not ready, by check; empty when it is.
        rss_bytes: resident memory; 0 when it does not run.
        address: what a client wants to know: the HTTP address of the collector, the gRPC address of the others.
    """

    service: str
    pid: int
    reasons: Mapping[str, str]
    rss_bytes: int
    address: str

    @property
    def ready(self) -> bool:
        """It runs and takes work."""
        return not self.reasons


def probe(service: str, pid: int, addresses: Mapping[str, str]) -> Health:
    """Look at a service once.

    Args:
        service: its name.
        pid: its process; 0 when it is known not to run.
        addresses: as announced.
    """
    address = addresses.get("http") or addresses.get("grpc", "")
    rss = resident_bytes(pid) if pid else 0
    if not rss:
        return Health(service, 0, {"process": "not running"}, 0, address)
    return Health(service, pid, readiness(addresses.get("ops", "")), rss, address)


def readiness(ops: str) -> Mapping[str, str]:
    """Why the service at an operators' address is not ready, by check; empty when it is."""
    if not ops:
        return {"process": "starting"}
    try:
        with urllib.request.urlopen(f"http://{ops}/readyz", timeout=READY_SECONDS):
            return {}
    except urllib.error.HTTPError as error:
        try:
            return {str(check): str(reason) for check, reason in json.load(error).items()}
        except ValueError:
            return {"readyz": f"answered {error.code}"}
    except (OSError, ValueError):
        return {"readyz": "does not answer"}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it does not run."""
    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.memory_info().rss)
    except psutil.Error:
        return 0
