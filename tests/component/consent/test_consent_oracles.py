"""New strings from IAB's reference implementations (npm), read by both sides: any difference is a fault of ours, or of theirs."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.collector.npm import npm_packages
from tests.unit.consent.facts import Facts, check_gpp, check_tcf

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def npm() -> Path:
    """Where the reference implementations are installed."""
    return npm_packages(NODE, "consent-oracles")


def made(npm: Path, kind: str, count: int) -> Iterator[Facts]:
    """As many strings as asked for, with what the reference implementation reads in them. A difference shows the string."""
    seed = random.randrange(1 << 31)
    command = ["node", str(NODE / "oracle.cjs"), kind, str(seed), str(count)]
    result = subprocess.run(command, env=os.environ | {"NODE_PATH": str(npm)}, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr[-2_000:]
    lines = result.stdout.splitlines()
    assert len(lines) == count, f"seed {seed}"
    return map(json.loads, lines)


def test_tc_strings(npm: Path) -> None:
    for facts in made(npm, "tcf", 150):
        check_tcf(facts)


def test_gpp_strings(npm: Path) -> None:
    for facts in made(npm, "gpp", 300):
        check_gpp(facts)
