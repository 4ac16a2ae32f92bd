"""The way to a ClickHouse server: its URL, statements, rows as Arrow, and what its errors mean.

Calls go over HTTP without a session, so there is nothing to restore after an interruption: the next call finds the server or does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.warehouses.base import Options

DEPENDENCY: Final = "warehouse"
DEFAULT_DATABASE: Final = "main"
IN_PROCESS: Final = "chdb"

_SETTINGS: Final[Mapping[str, Any]] = {
    "async_insert": 0,
    "alter_sync": 2,
    "mutations_sync": 2,
    "allow_nondeterministic_mutations": 1,
    "max_query_size": 16 * 1024 * 1024,
    "output_format_json_quote_64bit_integers": 0,
    "date_time_output_format": "iso",
}
"""An insert, and a change of a table, is done when the call returns. ``allow_nondeterministic_mutations`` lets a deletion name its rows by
another table, also where tables are replicated: the ids of people never stand in a statement, which the server keeps."""

_MEMORY: Final = frozenset({173, 241})
_OF_VALUES: Final = frozenset({6, 16, 27, 36, 38, 41, 43, 44, 53, 69, 70, 72, 117, 131, 190, 261, 321, 349, 407})
"""Codes of errors that values, or columns that nobody knows, cause; any other error says nothing of the rows."""


class ValuesRefused(Exception):
    """The server does not take values, or does not know a column."""


class Connection:
    """Statements on one server.

    Args:
        options: its URL: ``clickhouse://user:password@host:8123/database``, ``clickhouse+https://…``, or ``clickhouse+chdb:///folder`` for
            the engine inside of this process.
        settings: of every statement, beside the loader's own.
        database: where a name without one is looked for; ``None``: nowhere, so that it need not be there.
    """

    def __init__(self, options: Options, settings: Mapping[str, Any] | None = None, *, database: str | None = None) -> None:
        self._client = _client(options.url, _SETTINGS if settings is None else settings, database)

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Runs a statement that answers nothing."""
        with translated():
            self._client.command(statement, parameters=parameters)

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The answer of a statement, in memory."""
        with translated():
            return [tuple(row) for row in self._client.query(statement, parameters=parameters).result_rows]

    def pages(self, statement: str) -> Iterator[Sequence[Sequence[Any]]]:
        """The answer of a statement, in pieces."""
        with translated(), self._client.query_row_block_stream(statement) as stream:
            yield from stream

    def lines(self, statement: str) -> Iterator[bytes]:
        """The rows of an answer as JSON objects."""
        with translated(), contextlib.closing(self._client.raw_stream(statement, fmt="JSONEachRow")) as stream:
            yield from _lines(stream)

    def insert(self, table: str, rows: Any, *, token: str | None = None) -> None:
        """Inserts an Arrow record batch.

        Args:
            table: its place, quoted.
            rows: whose columns the table has.
            token: with one, the server does nothing when it has seen the same one of late.
        """
        # The server takes no dictionary in which a value stands twice, and the loader's columns have such ones.
        columns = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in rows.columns]
        rows = pa.RecordBatch.from_arrays(columns, rows.schema.names)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        settings = {"insert_deduplication_token": token} if token else {}
        names = [_quoted(name) for name in rows.schema.names]
        with translated():
            self._client.raw_insert(f"{table} ({', '.join(names)})", None, sink.getvalue().to_pybytes(), settings, "ArrowStream")

    @property
    def client(self) -> Any:
        """The driver's client, for answers that are read as they come."""
        return self._client

    def close(self) -> None:
        """Lets go of it."""
        self._client.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns errors of the driver into faults, and into ``ValuesRefused``."""
    from clickhouse_connect.driver import exceptions

    try:
        yield
    except exceptions.Error as error:
        code = getattr(error, "code", None)
        if code in _MEMORY:
            raise OutOfMemory(DEPENDENCY, "the load needs more memory than ClickHouse may use") from error
        if code in _OF_VALUES:
            raise ValuesRefused(error_name(error)) from error
        raise Unavailable(DEPENDENCY, f"ClickHouse cannot now: {error_name(error)}") from error


def error_name(error: Any) -> str:
    """What kind of error it is, without a value or an address."""
    return str(getattr(error, "name", None) or type(error).__name__)


def database_of(url: str) -> str:
    """Where a question's names without a schema are looked for."""
    parts = urlsplit(url)
    return DEFAULT_DATABASE if _driver(url) == IN_PROCESS else unquote(parts.path).strip("/") or DEFAULT_DATABASE


def _client(url: str, settings: Mapping[str, Any], database: str | None) -> Any:
    import clickhouse_connect
    from clickhouse_connect.driver import exceptions

    parts = urlsplit(url)
    try:
        if _driver(url) == IN_PROCESS:
            return clickhouse_connect.get_client(dsn=f"chdb://{unquote(parts.path)}", database=database, settings=dict(settings))
        secure = _driver(url) == "https"
        return clickhouse_connect.get_client(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (8443 if secure else 8123),
            username=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure=secure,
            database=database,
            settings=dict(settings),
            autogenerate_session_id=False,
        )
    except exceptions.Error as error:
        raise Unavailable(DEPENDENCY, f"ClickHouse cannot be reached: {error_name(error)}", retry_after=1.0) from error


def _driver(url: str) -> str:
    return urlsplit(url).scheme.partition("+")[2]


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _lines(stream: Any) -> Iterator[bytes]:
    rest = b""
    while piece := stream.read(1 << 18):
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(None, whole)
    if rest:
        yield rest
