"""Queries of people on ClickHouse: one read-only statement, with limits.

Each question has a connection of its own, which is read-only from its first statement on (``readonly = 1``): neither a write nor a
function that reads files or the network passes, and no setting, so no limit, can be changed. The server's own parser says whether it is
one statement.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import pyarrow as pa

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge, Unavailable
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.ports import QueryLimits, Question, Rows
from cdi_warehouse_loader.warehouses.answers import STREAMED_ROWS, hand_over, over, refused, rows_within
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.clickhouse.connection import DEPENDENCY, Connection, database_of, error_name
from cdi_warehouse_loader.warehouses.clickhouse.consenting import check_names, table_filters
from cdi_warehouse_loader.warehouses.clickhouse.sql import text

_READS: Final = re.compile(r"\(*(SELECT|WITH|SHOW|DESCRIBE|EXPLAIN|EXISTS)\b")
_ELSEWHERE: Final = re.compile(r"^(INTO OUTFILE|FORMAT)\b", re.MULTILINE)
_TOO_LONG: Final = frozenset({159, 160})
_TOO_MUCH: Final = frozenset({173, 241})
_TELLING: Final = frozenset({36, 42, 43, 46, 47, 60, 62, 81, 164, 179, 184, 206, 215, 386, 455})
"""Codes of errors about the statement's own words; the text of others may quote a value of a row."""


def run_query(options: Options, question: Question, catalog: Catalog) -> Rows:
    """Runs one statement; see ``ports.Warehouse.query``."""
    with _asking(options, question, catalog) as (connection, statement), connection.client.query_row_block_stream(statement) as stream:
        columns = [(name, str(kind.name)) for name, kind in zip(stream.source.column_names, stream.source.column_types, strict=True)]
        values, truncated = rows_within(chain.from_iterable(stream), question.limits)
    return Rows(columns, values, truncated)


def stream_query(options: Options, question: Question, catalog: Catalog, take: Callable[[Any], None]) -> bool:
    """Runs one statement; see ``ports.Warehouse.stream``."""
    with _asking(options, question, catalog) as (connection, statement):
        settings = {"output_format_arrow_string_as_string": 1}
        with contextlib.closing(connection.client.raw_stream(statement, fmt="ArrowStream", settings=settings)) as stream:
            return hand_over(_Pieces(pa.ipc.open_stream(stream)), question.limits, take)


class _Pieces:
    """Record batches of a reader, cut into small ones."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.schema = reader.schema

    def __iter__(self) -> Iterator[Any]:
        for batch in self._reader:
            for start in range(0, batch.num_rows, STREAMED_ROWS):
                yield batch.slice(start, STREAMED_ROWS)


@contextlib.contextmanager
def _asking(options: Options, question: Question, catalog: Catalog) -> Iterator[tuple[Connection, str]]:
    """A connection for one question, and its statement, for the time of the block in which the answer is read."""
    from clickhouse_connect.driver import exceptions

    limits = question.limits
    settings: dict[str, Any] = {
        "final": 1,
        "join_use_nulls": 1,  # this and the next one: as other engines, and as the views
        "aggregate_functions_null_for_empty": 1,
        "max_execution_time": limits.seconds,
        "timeout_overflow_mode": "throw",
        "limit": limits.rows + 1,
        "output_format_arrow_string_as_string": 1,
        "max_query_size": 1_048_576,
    }
    if question.purposes:
        settings["additional_table_filters"] = table_filters(catalog, question.purposes)
    settings["readonly"] = 1  # the last one: after it no other can be set
    connection = Connection(options, settings, database=database_of(options.url))
    try:
        statement = _one_statement(connection, question.sql)
        if question.purposes:
            _check_names(options, statement, catalog)
        yield connection, statement
    except exceptions.Error as error:
        raise _fault(error, limits) from error
    except pa.ArrowInvalid as error:
        raise refused("the answer ended before it was complete") from error
    finally:
        connection.close()


def _one_statement(connection: Connection, sql: str) -> str:
    ((statement,),) = connection.client.query(f"select formatQuery({text(sql)})").result_rows
    if not _READS.match(statement):
        raise refused("only SELECT, WITH, SHOW, DESCRIBE, EXISTS and EXPLAIN are allowed")
    if _ELSEWHERE.search(statement):
        raise refused("the form of the answer and where it goes cannot be chosen")
    return str(statement)


def _check_names(options: Options, statement: str, catalog: Catalog) -> None:
    """``check_names`` on a connection of its own: on that of the question, the limit of rows would cut short what it looks at."""
    connection = Connection(options, {"readonly": 1}, database=(database := database_of(options.url)))
    try:
        check_names(connection, statement, catalog, database)
    finally:
        connection.close()


def _fault(error: Any, limits: QueryLimits) -> Exception:
    code = getattr(error, "code", None)
    if code in _TOO_LONG:
        return over("seconds", limits.seconds)
    if code in _TOO_MUCH:
        return TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "the query needs more memory than it may have", metadata={"limit": "memory"})
    if code is None:
        return Unavailable(DEPENDENCY, f"ClickHouse cannot now: {error_name(error)}")
    if code not in _TELLING:
        return refused(f"the query failed: {error_name(error)}")
    first = str(error).splitlines()[0]
    return refused(re.sub(r"(Code: \d+\. )?DB::Exception: |\(version .*", "", first)[:500])
