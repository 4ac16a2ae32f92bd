"""Chromium from npm, unpacked by the test run into ``build/``, and pages in it whose SDKs send to a collector.

The pages of ``browser/pages`` are served at an origin of their own, so what a browser asks and enforces for another origin is real. Skipped
where ``npm.py`` skips, and on machines for which the package has no browser.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .npm import BUILD, npm_packages

SIGNALS = {"DNT": "1", "Sec-GPC": "1"}
"""Chromium has no setting for these any more: the driver puts them on every request, where CORS takes them for the browser's own."""

PROJECT = Path(__file__).parent / "browser"

Asked = tuple[str, str, int]


@dataclass(frozen=True)
class Visit:
    """What a page did until it was left; what it sent while it went is not in it."""

    requests: list[Asked]
    """Method, URL and status of every answer."""

    failures: list[str]
    """Requests without an answer, among them those that CORS forbids."""

    errors: list[str]
    """What the console says of them, and uncaught exceptions."""

    def to(self, address: str) -> list[Asked]:
        """The requests to a host and port: method, path and status."""
        return [(method, urlsplit(url).path, status) for method, url, status in self.requests if urlsplit(url).netloc == address]


class Browser:
    """One browser, driven by lines of JSON (``browser/drive.cjs``)."""

    def __init__(self, driver: subprocess.Popen[str]) -> None:
        self._driver = driver

    def open(self, page: str, collector: str, *, elsewhere: bool, secure: bool, **told: str) -> tuple[str, str]:
        """Loads a page as a new visitor, with no cookies, and waits for the calls that it waits for itself.

        Args:
            page: its name in ``browser/pages``.
            collector: host and port.
            elsewhere: the page is at another site than the collector, not only at another origin.
            secure: there is a proxy in front of the collector that says that it has ended TLS.
            told: what stands in the page for ``{{name}}``.

        Returns:
            Host and port of the page, and of what it knows as the collector.
        """
        host = "localhost" if elsewhere else "127.0.0.1"
        answer = self._done(do="open", page=page, host=host, secure=secure, collector=f"http://{collector}", headers=SIGNALS, **told)
        return urlsplit(answer["origin"]).netloc, urlsplit(answer["door"]).netloc

    def leave(self) -> Visit:
        """Closes the page as a person does: what it has to do then is done."""
        answer = self._done(do="leave")
        return Visit([(method, url, status) for method, url, status in answer["requests"]], answer["failures"], answer["errors"])

    def _done(self, **command: Any) -> dict[str, Any]:
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(json.dumps(command) + "\n")
        self._driver.stdin.flush()
        answer: dict[str, Any] = json.loads(self._driver.stdout.readline() or '{"failed": "the driver has ended"}')
        assert "failed" not in answer, answer
        return answer


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """A running browser that keeps its files in a directory; it ends with the block."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the package from npm has a browser for Linux on x86-64 only")
    packages = npm_packages(PROJECT, "browser")
    environment = os.environ | {"NODE_PATH": str(packages), "TMPDIR": str(directory), "HOME": str(directory)}
    command = ["node", str(PROJECT / "drive.cjs"), str(_unpacked(packages))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        try:
            yield Browser(driver)
            assert driver.stdin
            driver.stdin.close()
            assert driver.wait(60) == 0
        finally:
            driver.kill()


def _unpacked(packages: Path) -> Path:
    """The browser's folder, named by its version, so that another version is unpacked anew."""
    package = packages / "@sparticuz" / "chromium"
    ready = BUILD / "browser" / f"chromium-{json.loads((package / 'package.json').read_text())['version']}"
    if not ready.is_dir():
        with tempfile.TemporaryDirectory(dir=ready.parent) as unfinished:
            target = Path(unfinished, "chromium")
            target.mkdir()
            subprocess.run(["node", str(PROJECT / "unpack.mjs"), str(package), str(target)], check=True, timeout=60)
            target.rename(ready)
    return ready
