"""Where the lake's files lie: a folder of this machine, or whatever else pyarrow's file systems reach.

A file has its name for good: it is written once, and never again under that name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO

from cdi_warehouse_loader.warehouses.base import Options

_LOCAL: Final = "file://"
_SQLITE: Final = "sqlite"
_POSTGRES: Final = "postgresql"


class Storage:
    """The files of one lake.

    Args:
        location: what all names begin with: ``file:///…``, ``s3://…``.
        properties: of the file system, as pyiceberg has them: ``s3.endpoint``, ….
    """

    def __init__(self, location: str, properties: dict[str, str]) -> None:
        self.location = location.rstrip("/")
        self.io = PyArrowFileIO(properties)
        self.is_local = location.startswith(_LOCAL)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """A stream for a new file. Names are never used twice, so nothing is overwritten."""
        with self.io.new_output(name).create(overwrite=True) as stream:
            yield stream

    def write(self, name: str, content: Any) -> None:
        """A new file of bytes."""
        with self.writing(name) as stream:
            stream.write(content)

    def read(self, name: str) -> Any:
        """A file, to be read at any place."""
        return self.io.new_input(name).open()

    def settle(self, names: Iterable[str]) -> None:
        """When it returns, the files outlast a power cut. Elsewhere than on this machine they do so as soon as they are written."""
        if not self.is_local:
            return
        paths = [Path(local_path(name)) for name in names]
        for path in (*paths, *{path.parent for path in paths}):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes files; those that are gone already are no matter."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.io.delete(name)

    def listed(self) -> set[str]:
        """The names of all files there are."""
        scheme, host, path = PyArrowFileIO.parse_location(self.location)
        found = self.io.fs_by_scheme(scheme, host).get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return {self.location + one.path.removeprefix(path) for one in found if one.type is fs.FileType.File}

    def readable(self, name: str) -> str:
        """A file as DuckDB names it."""
        return local_path(name) if self.is_local else name

    def file_system(self) -> tuple[str, Any]:
        """The scheme of names elsewhere than on this machine, and pyarrow's file system for them."""
        scheme, host, _ = PyArrowFileIO.parse_location(self.location)
        return scheme, self.io.fs_by_scheme(scheme, host)


def opened(options: Options) -> tuple[str, Storage]:
    """What the URL of a lake says: the catalog's database, as SQLAlchemy has it, and the files.

    ``iceberg+sqlite:///folder`` is a folder of this machine; of ``iceberg+postgresql://…/database?warehouse=<location>`` the files lie at
    the location, and what has a dot in its name is for their file system (``s3.endpoint``).

    Raises:
        ValueError: it says something else.
    """
    split = urlsplit(options.url)
    driver = split.scheme.partition("+")[2]
    if driver == _SQLITE:
        folder = Path(unquote(split.path)).absolute()
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder}/catalog.db", Storage(f"{_LOCAL}{folder}/tables", {})
    asked = dict(parse_qsl(split.query))
    warehouse = asked.pop("warehouse", "")
    if driver != _POSTGRES or not warehouse:
        raise ValueError("a lake is iceberg+sqlite:///folder or iceberg+postgresql://user:password@host/database?warehouse=location")
    if "://" not in warehouse:
        Path(warehouse).mkdir(parents=True, exist_ok=True)
        warehouse = _LOCAL + warehouse
    properties = {name: asked.pop(name) for name in list(asked) if "." in name}
    database = f"postgresql+psycopg://{split.netloc}{split.path}"
    return f"{database}?{urlencode(asked, quote_via=quote)}" if asked else database, Storage(warehouse, properties)


def local_path(name: str) -> str:
    """The path of a file of this machine."""
    return name.removeprefix(_LOCAL)
