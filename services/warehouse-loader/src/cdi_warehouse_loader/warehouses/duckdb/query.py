"""Queries of people on the embedded warehouse: one read-only statement, with limits.

Three walls: the parser lets only SELECT (also WITH, SHOW, DESCRIBE) and EXPLAIN through; the transaction is read-only, which also stops a
WITH that writes; the database was opened without access to anything outside of it.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import duckdb

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.ports import QueryLimits, Rows
from cdi_warehouse_loader.warehouses.answers import STREAMED_ROWS, hand_over, over, refused, rows_within

_ALLOWED: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_FETCH: Final = 500


def run_query(
    connection: duckdb.DuckDBPyConnection, text: str, limits: QueryLimits, parameters: Sequence[object] = (), before: Iterable[str] = ()
) -> Rows:
    """Runs one statement; see ``ports.Warehouse.query``, and ``_running`` for the arguments."""
    with _running(connection, _one_statement(text), limits, parameters, before):
        columns = [(str(column[0]), str(column[1])) for column in connection.description or ()]
        values, truncated = rows_within(_rows(connection), limits)
    return Rows(columns, values, truncated)


def stream_query(
    connection: duckdb.DuckDBPyConnection, text: str, limits: QueryLimits, take: Callable[[Any], None], before: Iterable[str] = ()
) -> bool:
    """Runs one statement; see ``ports.Warehouse.stream``, and ``_running`` for the arguments."""
    with _running(connection, _one_statement(text), limits, (), before):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a copy, which the size of an answer bounds
            reader: Any = connection.to_arrow_reader(STREAMED_ROWS)
        with reader:  # a reader that is open keeps the transaction open
            return hand_over(reader, limits, take)


@contextlib.contextmanager
def _running(
    connection: duckdb.DuckDBPyConnection,
    statement: duckdb.Statement,
    limits: QueryLimits,
    parameters: Sequence[object],
    before: Iterable[str],
) -> Iterator[None]:
    """Runs a statement for the time of the block, in which its answer is read, and takes everything back afterwards.

    Args:
        connection: of queries.
        statement: what to run.
        limits: its time.
        parameters: stand for ``$1`` and so on in its text.
        before: statements that make what it needs, outside of the warehouse; without them the transaction is read-only.

    Raises:
        InvalidArgument: it fails.
        TooLarge: it takes longer or more memory than allowed.
    """
    preparations = list(before)
    connection.execute("begin" if preparations else "begin transaction read only")
    timer = threading.Timer(limits.seconds, connection.interrupt)
    timer.start()
    try:
        for preparation in preparations:
            connection.execute(preparation)
        connection.execute(statement, parameters)
        yield
    except duckdb.InterruptException as error:
        raise over("seconds", limits.seconds) from error
    except duckdb.OutOfMemoryException as error:
        raise TooLarge(
            error_pb2.ERROR_REASON_QUERY_REFUSED, "the query needs more memory than it may have", metadata={"limit": "memory"}
        ) from error
    except (duckdb.FatalException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        raise refused(_first_lines(error)) from error
    finally:
        timer.cancel()
        with contextlib.suppress(duckdb.Error):
            connection.execute("rollback")


def _one_statement(text: str) -> duckdb.Statement:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise refused(_first_lines(error)) from error
    if len(statements) != 1:
        raise refused(f"one statement is allowed, this has {len(statements)}")
    if statements[0].type not in _ALLOWED:
        raise refused(f"only SELECT, WITH, SHOW, DESCRIBE and EXPLAIN are allowed, this is {statements[0].type.name}")
    return statements[0]


def _rows(connection: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while fetched := connection.fetchmany(_FETCH):
        yield from fetched


def _first_lines(error: duckdb.Error) -> str:
    """What DuckDB says, without the statement that it quotes."""
    lines: Iterator[str] = iter(str(error).splitlines())
    return next(lines, "the query failed")[:500]
