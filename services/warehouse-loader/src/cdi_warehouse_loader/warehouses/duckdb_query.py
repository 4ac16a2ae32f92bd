"""Queries of people on the embedded warehouse: one read-only statement, with limits.

Three walls: the parser lets only SELECT (also WITH, SHOW, DESCRIBE) and EXPLAIN through; the transaction is read-only, which also stops a
WITH that writes; the database was opened without access to anything outside of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final

import duckdb

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import InvalidArgument, TooLarge
from cdi_warehouse_loader.ports import QueryLimits, Rows

_ALLOWED: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_EXACT_INTEGER: Final = 2**53
_FETCH: Final = 500


def run_query(connection: duckdb.DuckDBPyConnection, text: str, limits: QueryLimits, parameters: Sequence[object] = ()) -> Rows:
    """Runs one statement; see ``ports.Warehouse.query``. ``parameters`` stand for ``$1`` and so on in its text."""
    statement = _one_statement(text)
    connection.execute("begin transaction read only")
    timer = threading.Timer(limits.seconds, connection.interrupt)
    timer.start()
    try:
        connection.execute(statement, parameters)
        columns = [(str(column[0]), str(column[1])) for column in connection.description or ()]
        values, truncated = _fetch(connection, limits)
    except duckdb.InterruptException as error:
        raise _over("seconds", limits.seconds) from error
    except duckdb.OutOfMemoryException as error:
        raise TooLarge(
            error_pb2.ERROR_REASON_QUERY_REFUSED, "the query needs more memory than it may have", metadata={"limit": "memory"}
        ) from error
    except (duckdb.FatalException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        raise _refused(_first_lines(error)) from error
    finally:
        timer.cancel()
        with contextlib.suppress(duckdb.Error):
            connection.execute("rollback")
    return Rows(columns, values, truncated)


def _one_statement(text: str) -> duckdb.Statement:
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise _refused(_first_lines(error)) from error
    if len(statements) != 1:
        raise _refused(f"one statement is allowed, this has {len(statements)}")
    if statements[0].type not in _ALLOWED:
        raise _refused(f"only SELECT, WITH, SHOW, DESCRIBE and EXPLAIN are allowed, this is {statements[0].type.name}")
    return statements[0]


def _fetch(connection: duckdb.DuckDBPyConnection, limits: QueryLimits) -> tuple[Sequence[Sequence[Any]], bool]:
    values: list[list[Any]] = []
    size = 0
    while fetched := connection.fetchmany(_FETCH):
        for row in fetched:
            if len(values) >= limits.rows:
                return values, True
            shown = [_json(value) for value in row]
            size += sum(map(_size, shown))
            if size > limits.size:
                raise _over("bytes", limits.size)
            values.append(shown)
    return values, False


def _json(value: Any) -> Any:
    """A value as JSON has it; what JSON cannot say exactly is text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _size(value: object) -> int:
    return len(value) + 8 if isinstance(value, str) else 8


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason=error_pb2.ERROR_REASON_QUERY_REFUSED)


def _over(limit: str, allowed: float) -> TooLarge:
    return TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, f"the query is over its limit of {allowed:g} {limit}", metadata={"limit": limit})


def _first_lines(error: duckdb.Error) -> str:
    """What DuckDB says, without the statement that it quotes."""
    lines: Iterator[str] = iter(str(error).splitlines())
    return next(lines, "the query failed")[:500]
