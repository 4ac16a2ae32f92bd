"""A service process: announced addresses, settings, restart, migration, end."""

import json
import urllib.request
from pathlib import Path

import pytest

from cdi_cli.embedded import ProcessFailed, ServiceProcess

# Speaks the protocol of a service towards its parent: migrate, one line of JSON, SIGTERM.
STAND_IN = """
import json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

if sys.argv[1:] == ["migrate"]:
    sys.exit("no database" if "CDI_DATABASE_URL" not in os.environ else 0)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name: value for name, value in os.environ.items() if name.startswith("CDI_")}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

host, port = os.environ.get("CDI_OPS_ADDRESS", "127.0.0.1:0").split(":")
server = HTTPServer((host, int(port)), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
announcement = {"service": "stand-in", "instance": "i1", "ops": f"127.0.0.1:{server.server_port}"}
print(json.dumps(announcement), flush=True)
server.serve_forever(poll_interval=0.02)
"""


@pytest.fixture
def service(tmp_path: Path) -> ServiceProcess:
    package = tmp_path / "cdi_stand_in"
    package.mkdir()
    (package / "__main__.py").write_text(STAND_IN)
    return ServiceProcess("stand-in", {"PYTHONPATH": str(tmp_path), "CDI_LOG_LEVEL": "DEBUG"}, tmp_path / "run")


def settings_of(service: ServiceProcess) -> dict[str, str]:
    with urllib.request.urlopen(f"http://{service.ops}/", timeout=5) as answer:
        settings: dict[str, str] = json.load(answer)
    return settings


def test_start_returns_with_the_announced_addresses(service: ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_OF_ANOTHER_PROCESS", "1")
    with service:
        assert service.instance == "i1"
        assert settings_of(service) == {"CDI_LOG_LEVEL": "DEBUG"}
    assert not service.running


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_restarted_service_is_where_it_was(service: ServiceProcess, end: str) -> None:
    with service:
        address = service.ops
        getattr(service, end)()
        service.start()
        assert service.ops == address
        assert settings_of(service)["CDI_OPS_ADDRESS"] == address


def test_terminate_and_wait_give_the_exit_code(service: ServiceProcess) -> None:
    service.start()
    service.terminate()
    assert service.wait() == 0


def test_migrate_fails_with_the_text_of_the_service(service: ServiceProcess) -> None:
    with pytest.raises(ProcessFailed, match=r"stand-in migrate exited with code 1\nno database"):
        service.migrate()
    service.environment["CDI_DATABASE_URL"] = "postgresql://nowhere/x"
    service.migrate()


def test_service_that_dies_at_the_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="No module named cdi_absent"):
        ServiceProcess("absent", {}, tmp_path).start()
