"""Where tests write."""

from pathlib import Path

import pytest

from cdi_testing import plugin


@pytest.mark.parametrize(("needed", "told", "in_memory"), [(0, None, True), (2**63, None, False), (0, "/elsewhere", False)])
def test_tests_write_into_memory_where_there_is_enough_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needed: int, told: str | None, in_memory: bool
) -> None:
    monkeypatch.setattr(plugin, "MEMORY", tmp_path)
    monkeypatch.setattr(plugin, "MEMORY_BYTES", needed)
    environment = {} if told is None else {"PYTEST_DEBUG_TEMPROOT": told}
    monkeypatch.setattr("os.environ", environment)
    plugin.pytest_configure()
    assert environment.get("PYTEST_DEBUG_TEMPROOT") == (str(tmp_path) if in_memory else told)


def test_a_machine_without_memory_to_write_into_has_its_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plugin, "MEMORY", tmp_path / "none")
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    plugin.pytest_configure()
    assert environment == {}
