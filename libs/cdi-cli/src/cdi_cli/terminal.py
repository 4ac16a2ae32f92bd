"""What every command shares towards the person: options, the console, and one way to fail."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import typer
from rich.console import Console

from cdi_cli.embedded import ProcessFailed
from cdi_cli.suite import SuiteNotRunning
from cdi_kernel.faults import Fault, InvalidArgument

DEFAULT_DIRECTORY: Final = Path(".cdi")
"""State of a suite, relative to the working directory."""

Directory = Annotated[Path, typer.Option("--directory", "-d", help="State of the suite.", envvar="CDI_DIRECTORY")]
Workspace = Annotated[str, typer.Option("--workspace", "-w", help="The workspace.")]

console = Console(highlight=False)
"""Answers, on standard output."""

complaints = Console(stderr=True, highlight=False)
"""Errors and progress, on standard error."""

P = ParamSpec("P")
T = TypeVar("T")


class CommandFailed(RuntimeError):
    """The command cannot do what was asked; the text is all that the person needs."""


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with what can go wrong for good reasons told in one line and exit code 1 instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (CommandFailed, SuiteNotRunning, ProcessFailed) as failure:
            _fail(str(failure))
        except Fault as fault:
            _fail(explained(fault))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapped


def explained(fault: Fault) -> str:
    """A fault in one line, with the fields that it names."""
    fields = [f"{field}: {text}" for field, text in fault.field_violations] if isinstance(fault, InvalidArgument) else []
    return "; ".join([f"{fault.message} ({fault.reason_name})", *fields])


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part."""
    return asyncio.run(work)


def _fail(text: str) -> None:
    complaints.print(f"error: {text}", style="red", markup=False)
    raise typer.Exit(1)
