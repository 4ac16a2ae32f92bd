"""A session with Snowflake over ADBC: rows go in as Parquet through a stage, answers come out as Arrow.

Facts that shape this (driver 1.11): one connection is one session; parameters of it go in with the login; the driver's own bulk way makes
a stage in the middle, which would end a transaction, so files are put on a stage of the session here. A statement that changes tables ends
the transaction that it stands in. Deliberately absent: a pool. Each thread has its sessions.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_snowflake import StatementOptions, dbapi

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.warehouses.snowflake.sql import STAGE, copy, literal, upper

DEPENDENCY: Final = "warehouse"
CANCELLED: Final = "57014"
_RETRY_SECONDS: Final = 1.0
_SPEAKING: Final = frozenset({"02", "0A", "42"})
"""Classes of SQLSTATE whose messages speak of the statement, and never of a value in a row."""

_OF_VALUES: Final = "22"
_LOST: Final = range(390_000, 391_000)
"""Errors of a login, or of a session that has ended."""

_NOT_COMMITTED_BY_ITSELF: Final = "alter session set autocommit = false"
_SMALL_STEPS: Final = {StatementOptions.RESULT_QUEUE_SIZE.value: "2", StatementOptions.PREFETCH_CONCURRENCY.value: "1"}

File = tuple[str, int]
"""A file of the stage, and its rows."""


class Refused(Exception):
    """Snowflake refuses a statement or the values in it. The text quotes no value.

    Attributes:
        state: SQLSTATE.
    """

    def __init__(self, state: str, code: int, said: str) -> None:
        super().__init__(said if state[:2] in _SPEAKING else f"Snowflake refuses it with error {code:06d} ({state})")
        self.state = state

    def fault(self) -> Exception:
        """What this is for the application: a refusal of the values, or anything else, which says nothing about them."""
        if self.state[:2] == _OF_VALUES:
            return self
        return Unavailable(DEPENDENCY, f"Snowflake cannot now: {self}", retry_after=_RETRY_SECONDS)


class Session:
    """One session, opened when it is first used, and anew after it was lost.

    Args:
        options: of the driver; see ``addresses``.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._connection: Any = None
        self._in_transaction = False
        self._has_stage = False
        self._cursors: list[Any] = []

    def run(self, statement: str, *parameters: object) -> None:
        """Runs a statement without an answer.

        Raises:
            Refused: Snowflake does not want it.
            Unavailable: there is no connection.
        """
        self.rows(statement, *parameters)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """All rows of a small answer, numbers without a fraction as integers; raises what ``run`` does."""
        with self._translated(), contextlib.closing(self._opened().cursor()) as cursor:
            cursor.execute(statement, list(parameters) or None)
            table = cursor.fetch_arrow_table()
        return [tuple(map(plain, row)) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]

    def staged(self, batches: Iterable[Any]) -> list[File]:
        """Puts record batches on the session's stage, each as one file, with one statement. The first time not inside a transaction,
        since a stage is made.

        Returns:
            For each batch its file and its rows, as ``copy_in`` takes them. What was not copied stays until the session ends.
        """
        load = uuid4().hex
        files: list[File] = []
        with tempfile.TemporaryDirectory(prefix="cdi-") as folder:
            for batch in batches:
                name = f"{len(files)}.parquet"
                columns = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns]
                _write(Path(folder, name), pa.Table.from_arrays(columns, list(map(upper, batch.schema.names))))
                files.append((f"{load}/{name}", batch.num_rows))
            if files:
                if not self._has_stage:
                    self.run(f"create temporary stage if not exists {STAGE}")
                    self._has_stage = True
                source = literal(f"file://{folder}/*.parquet")
                self.run(f"put {source} @{STAGE}/{load}/ overwrite = true auto_compress = false")
        return files

    def copy_in(self, place: str, file: File) -> None:
        """Copies a file of the stage into the columns of its names; raises what ``run`` does, and ``Unavailable`` if it is not whole."""
        name, expected = file
        answer = self.rows(copy(place, name))
        if sum(row[3] for row in answer if len(row) > 3) != expected:
            raise Unavailable(DEPENDENCY, "Snowflake did not find a file that was put on the stage", retry_after=_RETRY_SECONDS)

    def described(self, statement: str) -> None:
        """Has a query compiled, not run; raises what ``run`` does."""
        with self._translated(), contextlib.closing(self._opened().cursor()) as cursor:
            cursor.adbc_execute_schema(statement)

    @contextlib.contextmanager
    def reading(self, statement: str) -> Iterator[Any]:
        """The answer of a statement as a reader of record batches, as long as the block lasts; raises what ``run`` does."""
        with self._translated(), contextlib.ExitStack() as stack:
            cursor = self._opened().cursor()
            stack.callback(_close, cursor)
            cursor.adbc_statement.set_options(**_SMALL_STEPS)
            self._cursors.append(cursor)
            stack.callback(self._cursors.remove, cursor)
            cursor.execute(statement)
            reader = cursor.fetch_record_batch()
            stack.callback(_close, reader)
            yield reader

    def cancel(self) -> None:
        """Ends what ``reading`` has under way; from any thread."""
        for cursor in list(self._cursors):
            with contextlib.suppress(dbapi.Error, RuntimeError):
                cursor.adbc_cancel()

    @contextlib.contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """A transaction for the time of the block; taken back when it raises, or when it is not to be kept.

        Raises:
            Unavailable: the connection is lost. Whether a commit was done then only the warehouse itself can say.
        """
        self.run("begin transaction")
        self._in_transaction = True
        try:
            yield
            self.run("commit" if keep else "rollback")
        except BaseException:
            if self._connection is not None:
                try:
                    self.run("rollback")
                except (Refused, Unavailable):
                    self.close()
            raise
        finally:
            self._in_transaction = False

    def close(self) -> None:
        """Ends the session; the next use opens another one."""
        connection, self._connection, self._has_stage = self._connection, None, False
        if connection is not None:
            with contextlib.suppress(dbapi.Error, RuntimeError):
                connection.close()

    def _opened(self) -> Any:
        if self._connection is None:
            if self._in_transaction:
                raise _lost()
            try:
                self._connection = dbapi.connect(db_kwargs=dict(self._options), autocommit=True)
                with contextlib.closing(self._connection.cursor()) as cursor:
                    cursor.execute(_NOT_COMMITTED_BY_ITSELF)
            except dbapi.Error as error:
                self.close()
                code = f"error {error.vendor_code}" if error.vendor_code else type(error).__name__
                raise Unavailable(DEPENDENCY, f"no session with Snowflake: {code}", retry_after=_RETRY_SECONDS) from None
        return self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except dbapi.Error as error:
            state, code = error.sqlstate or "", error.vendor_code or 0
            if not state or code in _LOST:
                self.close()
                raise _lost() from None
            raise Refused(state, code, _said(error)) from None
        except (OSError, pa.ArrowException):
            raise Refused("", 0, "") from None


def _write(path: Path, rows: Any) -> None:
    try:
        pq.write_table(rows, path, compression="zstd")
    except OSError:
        raise Unavailable(DEPENDENCY, "there is no room for the rows of a load among temporary files", retry_after=_RETRY_SECONDS) from None


def plain(value: Any) -> Any:
    """A number without a fraction as an integer."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


def _close(what: Any) -> None:
    with contextlib.suppress(dbapi.Error, OSError, pa.ArrowException):
        what.close()


def _lost() -> Unavailable:
    return Unavailable(DEPENDENCY, "the session with Snowflake is lost", retry_after=_RETRY_SECONDS)


def _said(error: dbapi.Error) -> str:
    """Snowflake's message, without the lines that quote the statement."""
    text = str(error).rpartition("): ")[2] or str(error)
    return next(iter(text.partition(". Vendor code:")[0].splitlines()), "")[:500]
