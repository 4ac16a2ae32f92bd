"""A session with a Postgres server over ADBC: rows go in by binary COPY, answers come out as Arrow.

Facts that shape this (driver 1.13): every statement is prepared, so Postgres itself refuses several in one; a SELECT is run as
``COPY (…) TO STDOUT`` and read as it comes, and closing its reader before the end reads all the rest, so it is cancelled first; in its
automatic mode a transaction is always open, so transactions are begun and ended by statements here. Deliberately absent: a pool. Each
thread has one session.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.faults import OutOfMemory
from cdi_warehouse_loader.warehouses.postgresql.copying import as_copied

DEPENDENCY: Final = "warehouse"
ROW_BYTES: Final = 64 * 1024
"""Bytes of an answer that are read at a time, roughly."""

_SLICE_ROWS: Final = 100
"""Rows that the driver sends at a time: it writes all rows of a batch before it sends the first, and Postgres would wait for it."""

LOCK_NOT_AVAILABLE: Final = "55P03"
READ_ONLY: Final = "25006"
CANCELLED: Final = "57014"
OUT_OF_MEMORY: Final = "53200"
_WRONG_BYTES: Final = "08P01"
_PASSING: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE that say nothing about the rows: connections, logins, locks, resources, a server that stops or only reads."""

_SPEAKING: Final = frozenset({"", "0A", "25", "2B", "42", "54", "55"})
"""Classes whose messages never quote a value of a row."""

_RETRY_SECONDS: Final = 1.0
_CONNECTION: Final = {
    "application_name": "cdi-warehouse-loader",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SETTINGS: Final = """select set_config('TimeZone', 'UTC', false), set_config('lock_timeout', '5s', false),
    set_config('statement_timeout', '0', false), set_config('default_transaction_isolation', 'read committed', false),
    set_config('idle_in_transaction_session_timeout', '5min', false), set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false),
    case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', false) end"""
"""What a session needs whatever its role has been given: a commit that is durable, statements that see what was committed while they
waited for a lock, no waiting for one for ever, and an end of transactions whose process is frozen or gone, because they hold locks."""


class Refused(Exception):
    """The server, or its driver, refuses a statement or the values in it. The text quotes no value.

    Attributes:
        state: SQLSTATE; empty when the driver refuses.
    """

    def __init__(self, state: str, said: str) -> None:
        super().__init__(said if state[:2] in _SPEAKING else f"Postgres refuses it with SQLSTATE {state}")
        self.state = state

    def fault(self) -> Exception:
        """What this is for the application: a passing state of the server, or itself."""
        if self.state == OUT_OF_MEMORY:
            return OutOfMemory(DEPENDENCY, "the load needs more memory than Postgres has")
        if self.state == "42501" or (self.state[:2] in _PASSING and self.state != _WRONG_BYTES):
            return Unavailable(DEPENDENCY, f"Postgres cannot now: {self}", retry_after=_RETRY_SECONDS)
        return self


class Answer:
    """Rows as they come. Decimals and JSON, for which the driver has types of its own, are text as everywhere.

    Args:
        reader: of the driver.

    Attributes:
        reader: of the driver.
        schema: names and types of the columns.
        is_over: the last row has been read.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.schema = pa.schema([field.with_type(field.type.storage_type) if _is_text(field) else field for field in reader.schema])
        self.is_over = False

    def __iter__(self) -> Iterator[Any]:
        """Record batches.

        Raises:
            Refused: the statement fails at a row.
        """
        plain = self.schema.equals(self.reader.schema)
        while True:
            try:
                batch = self.reader.read_next_batch()
            except StopIteration:
                self.is_over = True
                return
            except (OSError, pa.ArrowException):
                raise Refused("", "the statement fails at one of its rows") from None
            yield batch if plain else self._as_text(batch)

    def _as_text(self, batch: Any) -> Any:
        columns = [column.storage if _is_text(field) else column for field, column in zip(batch.schema, batch.columns, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _is_text(field: Any) -> bool:
    return isinstance(field.type, pa.BaseExtensionType) and bool(pa.types.is_string(field.type.storage_type))


class Session:
    """One session, opened when it is first used, and anew after it was lost.

    Args:
        url: where; see ``addresses``.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._in_transaction = False

    def run(self, statement: str, *parameters: object) -> None:
        """Runs a statement without an answer.

        Raises:
            Refused: the server does not want it.
            Unavailable: there is no connection.
        """
        with self._cursor() as cursor:
            cursor.execute(statement, list(parameters) or None)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """All rows of a small answer; raises what ``run`` does."""
        with self._cursor() as cursor:
            cursor.execute(statement, list(parameters) or None)
            table = cursor.fetch_arrow_table()
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def copy_in(self, schema: str, table: str, rows: Any) -> None:
        """Copies a record batch into the columns of its names; raises what ``run`` does."""
        columns = [as_copied(column) for column in rows.columns]
        slices = pa.Table.from_arrays(columns, rows.schema.names).to_reader(_SLICE_ROWS)
        with self._cursor() as cursor:
            cursor.adbc_ingest(table, slices, mode="append", db_schema_name=schema)

    @contextlib.contextmanager
    def reading(self, statement: str, *, by_copy: bool = True) -> Iterator[Answer]:
        """The answer of a statement, as long as the block lasts; raises what ``run`` does. Inside a transaction only.

        Args:
            statement: without parameters.
            by_copy: ``False`` for what is no SELECT; its answer is held in memory.
        """
        options = {StatementOptions.USE_COPY.value: str(by_copy).lower(), StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(ROW_BYTES)}
        with contextlib.ExitStack() as stack:
            with self._translated(), contextlib.ExitStack() as opening:
                cursor = self._opened().cursor()
                opening.callback(_close, cursor)
                cursor.adbc_statement.set_options(**options)
                cursor.execute(statement)
                reader = cursor.fetch_record_batch()
                stack.push(opening.pop_all())
            answer = Answer(reader)
            stack.callback(self._stop, answer)
            yield answer

    @contextlib.contextmanager
    def transaction(self, mode: str = "", *, keep: bool = True) -> Iterator[None]:
        """A transaction for the time of the block; taken back when it raises, or when it is not to be kept.

        Raises:
            Unavailable: the connection is lost. Whether a commit was done then only the warehouse itself can say.
        """
        self.run(f"begin {mode}")
        self._in_transaction = True
        try:
            yield
            if keep:
                self.run("commit")
            else:
                self._rolled_back()
        except BaseException as error:
            if not self._rolled_back() and isinstance(error, Refused):
                raise _lost() from None
            raise
        finally:
            self._in_transaction = False

    def close(self) -> None:
        """Ends the session; the next use opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(dbapi.Error, RuntimeError):
                connection.close()

    def _opened(self) -> Any:
        if self._connection is None:
            if self._in_transaction:
                raise _lost()
            self._connection = _connect(self._url)
        return self._connection

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self._translated(), contextlib.closing(self._opened().cursor()) as cursor:
            yield cursor

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except dbapi.Error as error:
            state = error.sqlstate or ""
            if not state and isinstance(error, dbapi.OperationalError):
                self.close()
                raise _lost() from None
            raise Refused(state, _said(error)) from None

    def _rolled_back(self) -> bool:
        if self._connection is None:
            return False
        try:
            self.run("rollback")
        except (Refused, Unavailable):
            self.close()
            return False
        return True

    def _stop(self, answer: Answer) -> None:
        """Ends a statement, whose rows may not all have been read."""
        if not answer.is_over:
            with contextlib.suppress(dbapi.Error):
                self._connection.adbc_cancel()
        with contextlib.suppress(OSError, pa.ArrowException):
            answer.reader.close()


def addresses(url: str) -> tuple[str, str]:
    """Where the loader and the queries of people log in: ``query_user`` and ``query_password`` of the URL are those of the queries."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    user, password = given.pop("query_user", ""), given.pop("query_password", "")
    query = urlencode({**_CONNECTION, **given}, quote_via=quote)
    where = f"{parts.netloc.rpartition('@')[2]}{parts.path}?{query}"
    login, at, _ = parts.netloc.rpartition("@")
    own = f"postgresql://{login}{at}{where}"
    return own, f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{where}" if user else own


def _connect(url: str) -> Any:
    try:
        connection = dbapi.connect(url, autocommit=True)
    except dbapi.Error as error:
        password, said = urlsplit(url).password or url, _said(error)
        reason = "the URL is not right" if password in said or unquote(password) in said else said
        raise Unavailable(DEPENDENCY, f"no connection to Postgres: {reason}", retry_after=_RETRY_SECONDS) from None
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(_SETTINGS)
            cursor.fetchall()
    except dbapi.Error as error:
        connection.close()
        raise Unavailable(DEPENDENCY, f"no connection to Postgres: {_said(error)}", retry_after=_RETRY_SECONDS) from None
    return connection


def _close(cursor: Any) -> None:
    with contextlib.suppress(dbapi.Error):
        cursor.close()


def _lost() -> Unavailable:
    return Unavailable(DEPENDENCY, "the connection to Postgres is lost", retry_after=_RETRY_SECONDS)


def _said(error: dbapi.Error) -> str:
    """The server's message, without the statement and the line that it quotes."""
    text = str(error).partition("ERROR:  ")[2] or str(error).partition("[libpq] ")[2] or str(error)
    return next(iter(text.splitlines()), "")[:500]
