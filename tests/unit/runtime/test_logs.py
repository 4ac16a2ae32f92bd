"""Log lines: JSON, fixed names, and no text that could quote an event."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cdi_kernel.faults import Unavailable
from cdi_runtime.telemetry import configure_logs, logger


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logs("INFO", "example", "i1")
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_object_per_line(lines: io.StringIO) -> None:
    logger("a").info("outbox.published", rows=12)
    logging.getLogger("foreign").warning("said %s", "so\nand more")
    ours, foreign = read(lines)
    assert (ours["event"], ours["rows"], ours["service"], ours["level"]) == ("outbox.published", 12, "example", "info")
    assert (foreign["event"], foreign["logger"], foreign["instance"]) == ("said so\nand more", "foreign", "i1")


def test_the_text_of_a_foreign_exception_stays_out(lines: io.StringIO) -> None:
    try:
        try:
            raise ValueError("someone@example.com")
        except ValueError as error:
            raise Unavailable("database", "away") from error
    except Unavailable as fault:
        logger("a").error("x.failed", exc_info=fault)
    (line,) = read(lines)
    assert "someone" not in lines.getvalue()
    chain = line["exception"]
    assert isinstance(chain, list)
    assert [entry["type"] for entry in chain] == ["Unavailable", "ValueError"]
    assert chain[0]["text"] == "dependency_unavailable: away"
    assert chain[0]["frames"][0].startswith("runtime/test_logs.py:")
