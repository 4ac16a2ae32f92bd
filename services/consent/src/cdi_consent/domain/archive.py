"""The archive of an access request: a ZIP that is written piece by piece, with each holding as JSON lines and as CSV, and a manifest.

Times inside are fixed, so that the same holdings give the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

import orjson

_DATE: Final = (1980, 1, 1, 0, 0, 0)
MANIFEST: Final = "manifest.json"


class Piece(NamedTuple):
    """Rows of one holding.

    Attributes:
        service: who holds them.
        holding: what they are.
        part: its place among the pieces of the same service.
        rows: JSON objects, each ending with a newline.
    """

    service: str
    holding: str
    part: int
    rows: bytes

    @property
    def name(self) -> str:
        """Of the holding's files, without their ending."""
        return f"{self.service}/{self.holding}"

    def objects(self) -> list[dict[str, Any]]:
        """The rows, read."""
        return [orjson.loads(row) for row in self.rows.splitlines()]


class Archive:
    """A ZIP as it comes into being; every call gives the bytes that are ready."""

    def __init__(self) -> None:
        self._out = _Collected()
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_DEFLATED)
        self._entry: Any = None
        self._name = ""
        self._rows = 0
        self._sha256 = hashlib.sha256()
        self._files: list[dict[str, object]] = []

    def begin(self, name: str) -> bytes:
        """A new file, after the one before it."""
        finished = self.end()
        info = zipfile.ZipInfo(name, _DATE)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        self._entry = self._zip.open(info, "w", force_zip64=True)
        self._name, self._rows, self._sha256 = name, 0, hashlib.sha256()
        return finished

    def write(self, content: bytes, rows: int) -> bytes:
        """Adds to the file; ``rows`` of the holding are in it."""
        self._entry.write(content)
        self._sha256.update(content)
        self._rows += rows
        return self._out.take()

    def end(self) -> bytes:
        """Ends the file that was begun, if any."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None
            self._files.append({"name": self._name, "rows": self._rows, "sha256": self._sha256.hexdigest()})
        return self._out.take()

    def close(self, facts: dict[str, object]) -> bytes:
        """The manifest with some facts and all files, and the end of the ZIP."""
        ready = self.end()
        manifest = orjson.dumps(facts | {"files": self._files}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        ready += self.begin(MANIFEST) + self.write(manifest, 0)
        self._entry.close()
        self._zip.close()
        return ready + self._out.take()


def csv_rows(columns: Iterable[str], objects: Iterable[dict[str, Any]]) -> bytes:
    """Objects as lines of CSV (RFC 4180). What is no text is written as JSON; what is not there is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = list(columns)
    for one in objects:
        writer.writerow([_cell(one[name]) if name in one else "" for name in names])
    return text.getvalue().encode()


def csv_head(columns: Collection[str]) -> bytes:
    """The first line."""
    return csv_rows(columns, [{name: name for name in columns}])


def _cell(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


class _Collected(io.RawIOBase):
    """Where the ZIP is written: cannot be sought in, and forgets what was taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
