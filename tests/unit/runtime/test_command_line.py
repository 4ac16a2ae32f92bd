"""What the command line of a service answers before anything runs."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from cdi_runtime.service import ServiceContext, ServiceSettings
from cdi_runtime.service.lifecycle import run


class ExampleSettings(ServiceSettings):
    service_name: ClassVar[str] = "example"
    migrations: ClassVar[str | None] = "cdi_example.migrations"


@contextlib.asynccontextmanager
async def never(settings: ExampleSettings, context: ServiceContext) -> AsyncIterator[None]:
    raise AssertionError("must not start")
    yield


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CDI_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {"CDI_PARTITION": "8"}, "unknown environment names: CDI_PARTITION (did you mean CDI_PARTITIONS?)"),
        ([], {"CDI_PARTITIONS": "hunter2"}, "wrong settings: CDI_PARTITIONS: Input should be"),
        (["dance"], {}, "usage:"),
        (["serve", "migrate"], {}, "usage:"),
    ],
)
def test_a_mistake_of_the_operator_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(never, ExampleSettings, arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "hunter2" not in errors


def test_check_config_prints_what_is_in_force(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CDI_DATABASE_URL", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("CDI_PARTITIONS", "3")
    assert run(never, ExampleSettings, ["--check-config"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["CDI_PARTITIONS"], values["CDI_DATABASE_URL"]) == (3, "**********")
