"""From ``python -m cdi_<service>`` to the exit code.

Exit codes: 0 ended as told, 1 failed while starting or running, 2 wrong settings or arguments, 3 the database is not at the
migration head. The order of a start: arguments → settings → logs → telemetry → operators' HTTP port → bootstrap → one line of
JSON on stdout. The order of an end is the reverse; the first SIGTERM or SIGINT drains, the second one exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, TypeVar

import orjson
import uvloop
from pydantic import ValidationError

from cdi_kernel.faults import Fault
from cdi_runtime import telemetry
from cdi_runtime.service.context import ServiceContext
from cdi_runtime.service.ops import serve_ops
from cdi_runtime.service.settings import ServiceSettings, effective_settings, unknown_names
from cdi_runtime.telemetry.logs import configure_logs, logger

S = TypeVar("S", bound=ServiceSettings)
Bootstrap = Callable[[S, ServiceContext], AbstractAsyncContextManager[None]]
"""The composition root: enters the resources in start order, yields once all runs, leaves in reverse order."""

OK, FAILED, MISCONFIGURED, NOT_MIGRATED = 0, 1, 2, 3
_M_ARENA_MAX = -8  # of glibc's mallopt
USAGE = "usage: python -m cdi_<service> [serve | migrate | --check-config]"

log = logger(__name__)


def run_service(bootstrap: Bootstrap[S], settings: type[S]) -> NoReturn:
    """Runs one service until it is told to stop, and exits the process with the code that says why.

    Args:
        bootstrap: the service's composition root.
        settings: the class to read from the environment.
    """
    sys.exit(run(bootstrap, settings, sys.argv[1:]))


def run(bootstrap: Bootstrap[S], settings_class: type[S], arguments: Sequence[str]) -> int:
    """``run_service`` with its arguments given; returns the exit code."""
    command = arguments[0] if arguments else "serve"
    if len(arguments) > 1 or command not in ("serve", "migrate", "--check-config"):
        return _refuse(USAGE)
    settings = _read(settings_class)
    if settings is None:
        return MISCONFIGURED
    if command == "--check-config":
        print(orjson.dumps(effective_settings(settings), option=orjson.OPT_INDENT_2).decode())  # noqa: T201
        return OK
    _bound_malloc_arenas()
    context = ServiceContext(settings.service_name)
    configure_logs(settings.log_level, context.name, context.instance)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if command == "migrate":
            return runner.run(_migrate(settings))
        telemetry.configure(context.name, context.instance, settings.trace_sample_ratio)
        try:
            return runner.run(_serve(bootstrap, settings, context))
        finally:
            telemetry.shut_down()


def _read(settings: type[S]) -> S | None:
    """The settings from the environment, or ``None`` after saying on stderr what is wrong with it."""
    unknown = unknown_names(settings, os.environ)
    if unknown:
        names = [name + (f" (did you mean {near}?)" if near else "") for name, near in unknown.items()]
        _refuse("unknown environment names: " + ", ".join(names))
        return None
    try:
        return settings()
    except ValidationError as error:
        wrong = [f"CDI_{'__'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        _refuse("wrong settings: " + "; ".join(wrong))
        return None


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)  # noqa: T201
    return MISCONFIGURED


async def _migrate(settings: ServiceSettings) -> int:
    if settings.migrations is None:
        return OK
    if settings.database_url is None:
        return _refuse("CDI_DATABASE_URL is not set")
    from cdi_runtime.store.migrations import upgrade  # only this command needs Alembic

    try:
        await upgrade(settings.database_url.get_secret_value(), settings.migrations)
    except Fault as fault:
        log.error("service.migrate_failed", reason=fault.message)
        return FAILED
    return OK


async def _verified(url: str, package: str) -> int:
    """``OK`` when the database is at the head of the migrations, else the exit code, after saying why."""
    from cdi_runtime.store import SchemaOutdated, verify  # a service without a database needs no SQLAlchemy (20 MB)

    try:
        await verify(url, package)
    except SchemaOutdated as outdated:
        print(f"{outdated.message}: run python -m {package.partition('.')[0]} migrate", file=sys.stderr)  # noqa: T201
        return NOT_MIGRATED
    except Fault as fault:
        log.error("service.start_failed", reason=fault.message)
        return FAILED
    return OK


async def _serve(bootstrap: Bootstrap[S], settings: S, context: ServiceContext) -> int:
    if settings.migrations is not None:
        if settings.database_url is None:
            return _refuse("CDI_DATABASE_URL is not set")
        verdict = await _verified(settings.database_url.get_secret_value(), settings.migrations)
        if verdict != OK:
            return verdict
    started = _on_signals(context)
    context.readiness.add("service", lambda: "starting")
    try:
        async with serve_ops(context, settings.ops_address) as ops:
            context.announce("ops", ops)
            await _live(bootstrap, settings, context, started)
    except asyncio.CancelledError:
        log.info("service.start_abandoned")
    except Exception as error:  # the outermost catch of the process
        log.error("service.failed", text=str(error), exc_info=error)
        return FAILED
    finally:
        await context.end_tasks()
        # The interpreter lets go only of what a collection can reach; bindings (DuckDB's) report the rest as leaks, on stderr.
        gc.unfreeze()
    log.info("service.stopped")
    return FAILED if context.failure is not None else OK


async def _live(bootstrap: Bootstrap[S], settings: S, context: ServiceContext, started: asyncio.Event) -> None:
    """Enters the bootstrap, says so, waits for the stop, and leaves it within ``drain_seconds``."""
    resources = bootstrap(settings, context)
    await resources.__aenter__()
    started.set()
    _calm_garbage_collection()
    context.readiness.add("service", lambda: "stopping" if context.stopping.is_set() else None)
    line = {"service": context.name, "instance": context.instance, **context.addresses}
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.flush()
    log.info("service.started", **context.addresses)
    await context.stopping.wait()
    log.info("service.draining")
    try:
        async with asyncio.timeout(settings.drain_seconds):
            await resources.__aexit__(None, None, None)
    except TimeoutError:
        log.warning("service.drain_timed_out", seconds=settings.drain_seconds)


def _bound_malloc_arenas() -> None:
    """Two heaps instead of eight per core: each thread's heap keeps what a large batch once needed. Does nothing without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _calm_garbage_collection() -> None:
    """Leaves what the start made out of every later collection, and collects by batches rather than by events.

    A batch makes tens of thousands of objects without cycles, which die by reference counting; with Python's default of one collection
    every 700 new objects, looking for cycles among them took a quarter of the CPU of a busy service.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _on_signals(context: ServiceContext) -> asyncio.Event:
    """First signal: stop in order, or give up a start that is not over. Second: exit at once.

    Returns:
        The event to set when the start is over.
    """
    started = asyncio.Event()
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    told_before = False

    def told(number: signal.Signals) -> None:
        nonlocal told_before
        if told_before:
            os._exit(128 + number)
        told_before = True
        context.stopping.set()
        if not started.is_set() and main is not None:
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, told, number)
    return started
