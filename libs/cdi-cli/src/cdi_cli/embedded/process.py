"""A child process that cannot outlive its parent, writes to a log file and is stopped by its pid."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.005
"""Interval at which readiness and exit are looked at."""

START_SECONDS: Final = 90.0
"""How long a migration or a start may take: on a busy laptop Python alone needs seconds."""

LOG_TAIL_BYTES: Final = 4_000
"""How much of a log a failure shows."""

# Runs inside the child before the real program: asks the kernel to signal this process when its parent dies, leaves at
# once if that has happened already, and becomes the program. A trampoline, not preexec_fn: that one is unsafe once gRPC has
# threads.
_TRAMPOLINE: Final = (
    "import os,sys\n"
    "if sys.platform=='linux':\n"
    " import ctypes\n"
    " ctypes.CDLL(None).prctl(1,int(sys.argv[2]))\n"
    " if os.getppid()!=int(sys.argv[1]): sys.exit(1)\n"
    "os.execvp(sys.argv[3],sys.argv[3:])\n"
)


class ProcessFailed(RuntimeError):
    """A child did not start, died early or did not stop in time; the text ends with the tail of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody used a moment ago; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(reached: Callable[[], bool], within: float) -> bool:
    """Poll a condition for at most ``within`` seconds; returns whether it came true."""
    deadline = time.monotonic() + within
    while not reached():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class ChildProcess:
    """One operating-system process started by this one.

    Start it from a thread that lives at least as long as the child: the kernel counts the end of the starting thread as
    the death of the parent.

    Args:
        name: what failures call it.
        command: program and arguments.
        log_file: receives standard error, and standard output unless ``output_file`` is given; appended to.
        output_file: receives standard output alone; truncated.
        environment: the whole environment of the child; None passes this process's own on.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        output_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._command = list(command)
        self._output_file = output_file
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, death_signal: signal.Signals = signal.SIGKILL) -> None:
        """Start the process and return at once.

        Args:
            death_signal: what the kernel sends to the child when this process dies.

        Raises:
            ProcessFailed: it is running already.
        """
        if self.running:
            raise ProcessFailed(f"{self.name} is running already (pid {self.pid})")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), str(int(death_signal))]
        with self.log_file.open("ab") as log:
            output = log if self._output_file is None else self._output_file.open("wb")
            try:
                self._process = subprocess.Popen(
                    [*trampoline, *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=log,
                    env=None if self._environment is None else dict(self._environment),
                    # Its own session: Ctrl-C reaches the parent only, which then stops its children in order.
                    start_new_session=True,
                )
            finally:
                if output is not log:
                    output.close()

    @property
    def pid(self) -> int:
        """Process id of the running or last child.

        Raises:
            ProcessFailed: it was never started.
        """
        if self._process is None:
            raise ProcessFailed(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child exists and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the ended child, negative for a signal; None while it runs or before the start."""
        return None if self._process is None else self._process.poll()

    def await_ready(self, ready: Callable[[], bool], within: float) -> None:
        """Wait until ``ready`` answers True.

        Raises:
            ProcessFailed: the child ended first (it is reaped) or the deadline passed (it is killed).
        """
        if wait_until(lambda: not self.running or ready(), within) and self.running:
            return
        reason = f"exited with code {self.exit_code}" if not self.running else f"was not ready within {within:g} s"
        self.kill()
        raise ProcessFailed(f"{self.name} {reason}\n{self.log_tail()}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the child still runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, within: float) -> int:
        """Wait for the end of the child and return its exit code.

        Raises:
            ProcessFailed: it still runs after ``within`` seconds.
        """
        if self._process is None:
            raise ProcessFailed(f"{self.name} was never started")
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {within:g} s\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End the child at once (SIGKILL) and reap it; nothing happens when it has ended already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, number: signal.Signals, within: float) -> None:
        """Ask the child to end; kill it when it has not ended in time."""
        if not self.running:
            return
        self.send(number)
        if not wait_until(lambda: not self.running, within):
            self.kill()

    def log_tail(self) -> str:
        """The last lines of the log."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
