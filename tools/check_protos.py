"""Lint the protocol and compare it with the committed baseline.

buf resolves imports through its registry; here protoc builds the image from the installed wheels and buf reads that, so
both checks work offline. ``--write-baseline`` accepts the protocol of the work tree as the baseline that later changes
must stay compatible with.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tools.generate_protos import PROTOS, ProtocError, run_protoc

BASELINE = PROTOS / "baseline.binpb"
CONFIG = PROTOS / "buf.yaml"


def build_image(target: Path, *, comments: bool) -> None:
    """Compile the protocol and all it imports to one descriptor set.

    Args:
        target: file to write.
        comments: keep comments and positions (lint needs them; the baseline does without).
    """
    options = ["--include_imports", f"--descriptor_set_out={target}"]
    if comments:
        options.append("--include_source_info")
    run_protoc(*options)


def buf(*arguments: str) -> int:
    """Run buf; its findings go to the terminal. Returns its exit code."""
    command = [str(Path(sysconfig.get_path("scripts")) / "buf"), *arguments, "--config", str(CONFIG)]
    return subprocess.run(command, check=False).returncode


def check() -> int:
    """Lint, then compare with the baseline. Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        build_image(image, comments=True)
        code = buf("lint", str(image)) or buf("breaking", str(image), "--against", str(BASELINE), "--against-config", str(CONFIG))
    if code == 0:
        print("protocol: lint clean, compatible with the baseline")
    return code


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-baseline", action="store_true", help="accept the current protocol as the baseline")
    arguments = parser.parse_args()
    try:
        if arguments.write_baseline:
            build_image(BASELINE, comments=False)
            print(f"wrote protos/{BASELINE.name}")
            return 0
        return check()
    except ProtocError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
