"""Which cores the processes of a benchmark run on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Children that are started inside run on this core."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


@contextmanager
def alone(pid: int, others: Iterable[int]) -> Iterator[None]:
    """For the time of the block a process has a core for itself; others, with their children, and this one share what is left.

    Nothing is moved where there is one core only.
    """
    cores = os.sched_getaffinity(0)
    first = {min(cores)}
    crowd = [psutil.Process(), *(process for other in others for process in _family(other))]
    try:
        if len(cores) > 1:
            _move(_family(pid), first)
            _move(crowd, cores - first)
        yield
    finally:
        _move([*_family(pid), *crowd], cores)


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _move(processes: Iterable[psutil.Process], cores: set[int]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with suppress(ProcessLookupError):  # it ended in between
                    os.sched_setaffinity(thread.id, cores)
