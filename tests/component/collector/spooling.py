"""What tests of the spool do without a collector around it, and disks that refuse for real."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cdi_collector.spool.log import Spool, spooled
from cdi_kernel.envelope import EVENTS
from cdi_runtime.bus import Outgoing

MEGABYTE = 1024 * 1024


def message(number: int, size: int = 100) -> Outgoing:
    return Outgoing(f"cdi.collected.{number % 8}", bytes([number % 256]) * size, f"id-{number}", {EVENTS: "2"})


def opened(directory: Path, max_bytes: int = 64 * MEGABYTE, segment_bytes: int = 10_000) -> AbstractAsyncContextManager[Spool]:
    return spooled(directory, max_bytes, segment_bytes)


async def drained(spool: Spool) -> list[Outgoing]:
    found: list[Outgoing] = []
    while not spool.empty:
        found += await spool.oldest()
        await spool.forget()
    return found


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


def aside(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool.damaged"))


@contextmanager
def disk_of(size: int, directory: Path) -> Iterator[Path]:
    """A file system of its own with so many bytes. Skips the test where that is not allowed."""
    directory.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield directory
    finally:
        # Lazily: a test that fails may still hold a file, and must not leave the mount behind.
        subprocess.run(["umount", "-l", directory], check=True)


@contextmanager
def limited(limit: int, soft: int) -> Iterator[None]:
    """This process under a limit of the kernel."""
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


def files_at_most(size: int) -> AbstractContextManager[None]:
    """A disk that takes no more: writing beyond ``size`` bytes of a file fails within the write."""
    return limited(resource.RLIMIT_FSIZE, size)


def no_more_files() -> AbstractContextManager[None]:
    """No file can be opened."""
    unused = os.open("/dev/null", os.O_RDONLY)
    os.close(unused)
    return limited(resource.RLIMIT_NOFILE, unused)


def now_writes_to(device: str, file: Path) -> None:
    """From now on, what this process writes to an open file, and flushes of it, meet a device instead."""
    (descriptor,) = (int(link.name) for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve() == file.resolve())
    other = os.open(device, os.O_WRONLY)
    os.dup2(other, descriptor)
    os.close(other)
