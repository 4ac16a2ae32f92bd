"""Packages from npm, installed by the test run into ``build/``; without node and npm the tests that need them are skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[3] / "build"


def npm_packages(project: Path, name: str) -> Path:
    """The ``node_modules`` of the project in a folder, installed into ``build/<name>`` unless they are there already."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are needed to run what comes from npm")
    installed = BUILD / name
    installed.mkdir(parents=True, exist_ok=True)
    wanted, known = project / "package.json", installed / "package.json"
    if not ((installed / "node_modules").is_dir() and known.exists() and known.read_text() == wanted.read_text()):
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
        shutil.copy(wanted, known)
        result = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False, timeout=110)
        if result.returncode:
            known.unlink()
            pytest.fail(f"npm install failed: {result.stderr[-2_000:]}")
    return installed / "node_modules"
