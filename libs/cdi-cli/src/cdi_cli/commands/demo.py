"""`cdi demo`: the example of the repository, on real input, from nothing to a balanced audit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cdi_cli.terminal import CommandFailed, reported

EXAMPLE: Final = Path("examples") / "cdnow_demo.py"

Keep = Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")]
Lines = Annotated[int, typer.Option("--lines", min=0, help="Only the first purchases; 0 takes all 69,659.")]
StateDirectory = Annotated[Path, typer.Option("--directory", "-d", help="State of the demo; emptied at the start.")]


@reported
def demo(keep: Keep = False, lines: Lines = 0, directory: StateDirectory = Path("build/demo")) -> None:
    """Send 69,659 real purchases through all six services, and prove that none was lost."""
    script = _example()
    arguments = ["--directory", str(directory), "--lines", str(lines), *(["--keep"] if keep else [])]
    sys.stdout.flush()
    # Becomes the example: it starts processes of its own and wants the signals itself.
    os.execv(sys.executable, [sys.executable, str(script), *arguments])


def _example() -> Path:
    """The example's script: below the working directory, or in the checkout that this package was installed from."""
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        if (folder / EXAMPLE).exists():
            return folder / EXAMPLE
    raise CommandFailed(f"{EXAMPLE} not found: run the demo in a checkout of the repository")
