"""What a newcomer relies on: the same layout everywhere, licences, documented settings, commands and reasons."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from cdi.error.v1 import error_pb2
from cdi_cli.main import app
from cdi_kernel import topology
from cdi_kernel.faults import reason_name
from cdi_runtime.service import ServiceSettings
from cdi_runtime.telemetry import instruments

ROOT = Path(__file__).parents[2]
SERVICES = sorted(folder.name for folder in (ROOT / "services").iterdir() if folder.is_dir())
PROJECTS = sorted(ROOT.glob("*/*/pyproject.toml"))
ROOMS = {"__init__.py", "__main__.py", "settings.py", "bootstrap.py", "servicer", "domain", "py.typed"}


def package(service: str) -> str:
    return f"cdi_{service.replace('-', '_')}"


def settings_of(service: str) -> type[ServiceSettings]:
    found: type[ServiceSettings] = importlib.import_module(f"{package(service)}.settings").Settings
    return found


def test_there_are_six_services() -> None:
    assert SERVICES == ["collector", "consent", "enrichment", "identity", "router", "warehouse-loader"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_rooms_that_every_service_has(service: str) -> None:
    folder = ROOT / "services" / service
    present = {entry.name.replace("servicer.py", "servicer") for entry in (folder / "src" / package(service)).iterdir()}
    assert present >= ROOMS
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_its_own_is_in_a_services_readme(service: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text()
    own = set(settings_of(service).model_fields) - set(ServiceSettings.model_fields)
    assert {name for name in own if f"CDI_{name.upper()}" not in text} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_the_migrations_of_a_service_are_one_line(service: str) -> None:
    """Two of the same number, from two branches, would be one for Alembic, which then leaves out the other."""
    folder = ROOT / "services" / service / "src" / package(service) / "migrations" / "versions"
    files = sorted(folder.glob("[0-9]*.py"))
    found = [re.search(r'^revision = "(\d+)"\ndown_revision = (?:"(\d+)"|None)$', file.read_text(), re.MULTILINE) for file in files]
    numbers = [f"{number:04}" for number in range(1, len(files) + 1)]
    assert [file.name.partition("_")[0] for file in files] == numbers
    assert [match and match.groups() for match in found] == list(zip(numbers, [None, *numbers], strict=False))


def test_services_take_no_library_along_that_only_happens_to_be_installed() -> None:
    """Libraries import others if they are there; these would cost a process 6 and 18 MB for nothing. Identity needs numpy itself."""
    others = ", ".join(f"{package(service)}.bootstrap" for service in SERVICES if service != "identity")
    code = (
        f"import sys, {others}; print(*{{'numpy', 'rich'}} & sys.modules.keys()); "
        "import cdi_identity.bootstrap; print(*{'rich'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_every_package_names_its_licence(project: Path) -> None:
    assert tomllib.loads(project.read_text())["project"]["license"] == "Apache-2.0"


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    documented = {
        "up",
        "demo",
        "apply",
        "send",
        "tail",
        "explain",
        "trace",
        "audit",
        "query",
        "profile",
        "privacy",
        "audience",
        "clean-room",
        "dead-letters",
        "doctor",
        "warehouse",
    }
    assert commands == documented
    assert {name for name in commands if f"| `{name}" not in text} == set()


def test_every_reason_of_the_door_is_in_its_documentation() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    raised = "".join(file.read_text() for file in (ROOT / "services/collector/src").rglob("*.py"))
    used = [value for name, value in error_pb2.ErrorReason.items() if f"error_pb2.{name}" in raised]
    admin_only = {error_pb2.ERROR_REASON_ALREADY_EXISTS}
    assert used
    assert {reason_name(value) for value in set(used) - admin_only if reason_name(value) not in text} == set()


def test_writers_and_readers_of_the_topology_are_services() -> None:
    for spec in topology.STREAMS:
        assert {*spec.writers, *spec.readers} <= set(SERVICES)
        assert spec.writers


def test_every_metric_is_described_in_the_registry_and_none_is_labelled_by_a_person_or_an_event() -> None:
    for described in instruments.REGISTRY.values():
        assert re.fullmatch(r"cdi_[a-z_]+", described.name)
        assert described.description.endswith(".")
        assert not described.labels & {"message_id", "user_id", "anonymous_id", "profile_id", "workspace"}


def test_no_file_names_this_machine_or_a_registry() -> None:
    words = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "/" + "work" + "/")))
    texts = (file for pattern in ("*.md", "*.toml", "*.txt", "*.py", "Makefile") for file in ROOT.glob(f"**/{pattern}"))
    ours = (file for file in texts if "build" not in file.parts and not any(part.startswith(".venv") for part in file.parts))
    named = [str(file.relative_to(ROOT)) for file in ours if words.search(file.read_text())]
    assert named == []


def test_examples_find_what_they_use() -> None:
    """The demo takes minutes and runs outside of the tests; a name that it imports and that is gone is found here."""
    modules = ", ".join(sorted(path.stem for path in (ROOT / "examples").glob("*.py")))
    answer = subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT / "examples", capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
