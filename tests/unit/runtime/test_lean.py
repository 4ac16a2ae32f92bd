"""Imports without optional libraries."""

import subprocess
import sys

CHECK = """
import sys
import cdi_runtime.bus, cdi_runtime.telemetry
assert "nats.aio.client" in sys.modules and "structlog" in sys.modules
assert "aiohttp" not in sys.modules and "rich" not in sys.modules, "loaded for nothing"
import aiohttp, rich
assert aiohttp.ClientSession and rich.print
"""


def test_a_service_does_not_load_what_it_does_not_use_and_can_still_import_it() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
