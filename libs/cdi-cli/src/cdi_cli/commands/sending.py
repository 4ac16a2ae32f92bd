"""`cdi send`: events over HTTP, as any client would send them."""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cdi_cli.suite import find_suite
from cdi_cli.terminal import DEFAULT_DIRECTORY, CommandFailed, Directory, console, reported

BATCH_EVENTS: Final = 100
TIMEOUT_SECONDS: Final = 30.0
SINGLE_TYPES: Final = ("track", "identify", "page", "screen", "group", "alias")

Event = Annotated[str | None, typer.Argument(help='One event as JSON, such as \'{"type":"track","event":"Hi","userId":"u1"}\'.')]
LinesFile = Annotated[Path | None, typer.Option("--file", "-f", help="JSON lines; - reads standard input.")]
WriteKey = Annotated[str, typer.Option("--write-key", "-k", envvar="CDI_WRITE_KEY", help="Of the source.")]
Url = Annotated[str, typer.Option("--url", help="Of another collector than the suite's.")]


@reported
def send(write_key: WriteKey, event: Event = None, file: LinesFile = None, url: Url = "", directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Send one event, or a file of events in batches of 100; returns when all are stored."""
    if (event is None) == (file is None):
        raise CommandFailed("give one event or --file")
    base = url or find_suite(directory).http_url
    lines = [event] if event is not None else _lines(file)
    sent = 0
    for batch in _batches(_parsed(lines)):
        # Alone, an event that the collector refuses is answered with the reason; in a batch it becomes a rejected event.
        alone = event is not None and batch[0].get("type") in SINGLE_TYPES
        if alone:
            _post(f"{base}/v1/{batch[0]['type']}", write_key, batch[0])
        else:
            post_batch(base, write_key, batch)
        sent += len(batch)
    console.print(f"{sent} {'event' if sent == 1 else 'events'} stored")


def post_batch(url: str, write_key: str, events: list[dict[str, Any]]) -> None:
    """Send one batch.

    Args:
        url: of the collector.
        write_key: of the source.
        events: as Segment's HTTP API has them.

    Raises:
        CommandFailed: the collector did not answer, or refused.
    """
    _post(f"{url}/v1/batch", write_key, {"batch": events})


def _post(url: str, write_key: str, body: dict[str, Any]) -> None:
    credentials = base64.b64encode(f"{write_key}:".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    stamped = body | {"sentAt": datetime.now(UTC).isoformat(timespec="milliseconds")}
    request = urllib.request.Request(url, json.dumps(stamped).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise CommandFailed(f"the collector answered {error.code}: {error.read(2_000).decode(errors='replace')}") from error
    except OSError as error:
        raise CommandFailed(f"the collector does not answer: {error}") from error


def _lines(file: Path | None) -> Iterator[str]:
    if file is None or str(file) == "-":
        yield from sys.stdin
        return
    try:
        with file.open(encoding="utf-8") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file}: {error}") from error


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError as error:
            raise CommandFailed(f"line {number}: not JSON: {error.msg}") from error
        if not isinstance(event, dict):
            raise CommandFailed(f"line {number}: an event is a JSON object")
        yield event


def _batches(events: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(events, BATCH_EVENTS)):
        yield batch
