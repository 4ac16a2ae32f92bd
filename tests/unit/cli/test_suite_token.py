"""The token of a suite's administration."""

import stat
from pathlib import Path

from cdi_cli.suite.endpoints import TOKEN_FILE, admin_token


def test_a_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = admin_token(tmp_path)
    assert len(first) >= 40
    assert admin_token(tmp_path) == first
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
