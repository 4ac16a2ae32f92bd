"""``python -m tools.fuzz NAME [libFuzzer's options]`` fuzzes one decoder; without a name, all of them in turn, each in its own process.

Environment: ``FUZZ_SECONDS`` (20) for each decoder. Inputs that reached new code stay in build/fuzz/<name>, from where the next run goes
on; an input that broke something is written there as crash-…, and the exit code is not 0.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import atheris

CORPUS: Final = Path("build/fuzz")
CAPTURES: Final = Path("tests/golden/collector")
SIGNALS: Final = Path("tests/golden/consent")
MAX_INPUT_BYTES: Final = 16 * 1024
MAX_RSS_MB: Final = 512


def fuzz(name: str, options: list[str]) -> None:
    """Fuzzes one decoder until its time is over; never returns, since libFuzzer ends the process."""
    # What is imported here is instrumented: every branch of it counts as coverage.
    with atheris.instrument_imports(include=["cdi_collector", "cdi_consent", "tools"]):
        from tools.fuzz import decoders, signals
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in (decoders.seeds(CAPTURES) | signals.seeds(SIGNALS))[name]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    seconds = os.environ.get("FUZZ_SECONDS", "20")
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-rss_limit_mb={MAX_RSS_MB}", "-timeout=5"]
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={corpus}/", *options, str(corpus)],
        {**decoders.DECODERS, **signals.DECODERS}[name],
    )
    atheris.Fuzz()


def fuzz_all() -> int:
    """Every decoder for its time, one after the other; the number of those that broke."""
    from tools.fuzz import decoders, signals

    broken = []
    for name in (*decoders.DECODERS, *signals.DECODERS):
        result = subprocess.run([sys.executable, "-m", "tools.fuzz", name, "-verbosity=0"], capture_output=True, text=True, check=False)
        runs = next((line.rpartition(" ")[2] for line in result.stderr.splitlines() if "number_of_executed_units" in line), "?")
        print(f"{name:28} {runs:>9} inputs  {'ok' if result.returncode == 0 else 'BROKEN'}", flush=True)
        if result.returncode:
            broken.append(name)
            print(result.stdout[-4_000:] + result.stderr[-4_000:])
    return len(broken)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
    sys.exit(1 if fuzz_all() else 0)
