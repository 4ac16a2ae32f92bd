"""Queries of people on a warehouse in Snowflake: one SELECT, with limits.

Snowflake has no transaction that only reads. What keeps a query from writing is that Snowflake has to compile its text inside of
``select … from (…)``, where nothing but a query can stand, before it is run; and, in production, a role that may only read.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.ports import Question, Rows
from cdi_warehouse_loader.warehouses.answers import STREAMED_ROWS, hand_over, over, refused, rows_within
from cdi_warehouse_loader.warehouses.snowflake.session import CANCELLED, Refused, Session, plain

_FIRST_WORD: Final = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|//[^\n]*(?:\n|$)|/\*.*?\*/)*([a-z]*)", re.IGNORECASE | re.DOTALL)
_LONGEST_INTEGER: Final = 19
_TYPE_NAMES: Final = {"fixed": "NUMBER", "real": "FLOAT", "text": "VARCHAR"}


class Asking:
    """The session of people's queries.

    Args:
        options: of the driver.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._seconds = 0
        self._session = Session(options)

    def query(self, question: Question) -> Rows:
        """See ``ports.Warehouse``."""
        with self._running(question) as answer:
            columns = [(field.name, _type_name(field)) for field in answer.schema]
            values, truncated = rows_within(_rows(answer), question.limits)
        return Rows(columns, values, truncated)

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """See ``ports.Warehouse``."""
        with self._running(question) as answer:
            return hand_over(_Pieces(answer), question.limits, take)

    def close(self) -> None:
        """Ends the session."""
        self._session.close()

    def _for(self, seconds: float) -> Session:
        """A session whose statements Snowflake ends after so many seconds."""
        whole = max(1, math.ceil(seconds))
        if whole != self._seconds:
            self._session.close()
            self._session = Session({**self._options, "STATEMENT_TIMEOUT_IN_SECONDS": str(whole)})
            self._seconds = whole
        return self._session

    @contextlib.contextmanager
    def _running(self, question: Question) -> Iterator[Any]:
        """Runs a statement for the time of the block, in which its answer is read.

        Raises:
            InvalidArgument: it is not allowed, or fails.
            TooLarge: it takes longer than allowed.
        """
        if question.purposes:
            raise refused("a warehouse in Snowflake does not limit queries to purposes")
        found = _FIRST_WORD.match(question.sql)
        if not found or found[1].lower() not in ("select", "with"):
            raise refused("only one SELECT is allowed, which may begin with WITH")
        statement = question.sql.rstrip().rstrip(";") + "\n"
        seconds = question.limits.seconds
        session = self._for(seconds)
        ends = time.monotonic() + seconds
        timer = threading.Timer(seconds, session.cancel)
        timer.start()
        try:
            session.described(f"select 1 as one from (\n{statement}) limit 0")
            with session.reading(statement) as answer:
                yield answer
        except Refused as error:
            if error.state == CANCELLED or time.monotonic() >= ends:
                raise over("seconds", seconds) from None
            raise refused(str(error)) from None
        except Unavailable:
            if time.monotonic() >= ends:  # the driver says nothing else of what was cancelled
                raise over("seconds", seconds) from None
            raise
        finally:
            timer.cancel()


class _Pieces:
    """Record batches of an answer, cut into small ones; whole numbers that fit are integers."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.schema = pa.schema([pa.field(field.name, pa.int64() if _is_integer(field.type) else field.type) for field in reader.schema])

    def __iter__(self) -> Iterator[Any]:
        for batch in self._reader:
            columns = [column.cast(field.type) for column, field in zip(batch.columns, self.schema, strict=True)]
            whole = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            for start in range(0, whole.num_rows, STREAMED_ROWS):
                yield whole.slice(start, STREAMED_ROWS)


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_decimal(kind)) and kind.scale == 0 and kind.precision <= _LONGEST_INTEGER


def _rows(answer: Any) -> Iterator[Sequence[Any]]:
    for batch in answer:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield [plain(value) for value in row]


def _type_name(field: Any) -> str:
    """Snowflake's own name of a column's type, which the driver hands on."""
    told: bytes | None = (field.metadata or {}).get(b"SNOWFLAKE_TYPE")
    name = told.decode().strip("'") if told else str(field.type)
    return _TYPE_NAMES.get(name, name.upper())
