"""Settings: what the environment may say, and how a mistake is answered."""

from typing import ClassVar

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from cdi_runtime.service import ServiceSettings, effective_settings, unknown_names


class Limits(BaseModel):
    max_body: int = 5


class ExampleSettings(ServiceSettings):
    service_name: ClassVar[str] = "example"

    limits: Limits = Limits()
    optional: Limits | None = None
    keys: dict[str, SecretStr] = Field(default_factory=dict)
    signing_key: SecretStr = SecretStr("s3cret")


@pytest.mark.parametrize(
    "name",
    [
        "CDI_LOG_LEVEL",
        "CDI_LIMITS",
        "CDI_LIMITS__MAX_BODY",
        "CDI_OPTIONAL__MAX_BODY",
        "CDI_KEYS__ANYTHING",
        "cdi_log_level",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PATH",
    ],
)
def test_a_known_or_foreign_name_passes(name: str) -> None:
    assert unknown_names(ExampleSettings, {name: "x"}) == {}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CDI_LIMTS", "CDI_LIMITS"),
        ("CDI_LIMITS__MAX_BODIES", "CDI_LIMITS__MAX_BODY"),
        ("CDI_QQQQ", None),
        ("CDI_LOG_LEVEL__DEEPER", "CDI_LOG_LEVEL"),
    ],
)
def test_a_misspelled_name_is_found_with_its_neighbour(name: str, near: str | None) -> None:
    assert unknown_names(ExampleSettings, {name: "x"}) == {name: near}


def test_nested_values_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_LIMITS__MAX_BODY", "7")
    assert ExampleSettings().limits.max_body == 7


def test_secrets_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1/d")
    monkeypatch.setenv("CDI_KEYS__ONE", "hunter2")
    settings = ExampleSettings()
    shown = str(effective_settings(settings)) + repr(settings)
    assert "hunter2" not in shown
    assert "s3cret" not in shown


def test_a_rejected_value_is_not_repeated_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_PARTITIONS", "hunter2")
    with pytest.raises(ValidationError) as caught:
        ExampleSettings()
    assert "hunter2" not in str(caught.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ExampleSettings().partitions = 3  # type: ignore[misc]
