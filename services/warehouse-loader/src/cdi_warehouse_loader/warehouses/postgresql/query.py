"""Queries of people on a warehouse in Postgres: one statement in a read-only transaction that is taken back, with limits.

What a role that is no superuser may not do (files, programs, other databases) no statement can do either.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge
from cdi_warehouse_loader.ports import Question, Rows
from cdi_warehouse_loader.warehouses.answers import hand_over, over, refused, rows_within
from cdi_warehouse_loader.warehouses.postgresql.consenting import Asking
from cdi_warehouse_loader.warehouses.postgresql.session import CANCELLED, OUT_OF_MEMORY, Answer, Refused

_FIRST_WORD: Final = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*([a-z]*)", re.IGNORECASE | re.DOTALL)
_SELECTS: Final = frozenset({"select", "with", "values", "table"})
_OTHERS: Final = frozenset({"show", "explain"})
_LIMITS: Final = "select set_config('statement_timeout', $1, true), set_config('search_path', 'main, public', true)"


def run_query(asking: Asking, question: Question, schemas: Iterable[str]) -> Rows:
    """Runs one statement; see ``ports.Warehouse.query``, and ``Asking.limited`` for the schemas."""
    with _running(asking, question, schemas) as answer:
        columns = [(field.name, _type_name(field)) for field in answer.schema]
        values, truncated = rows_within(_rows(answer), question.limits)
    return Rows(columns, values, truncated)


def stream_query(asking: Asking, question: Question, schemas: Iterable[str], take: Callable[[Any], None]) -> bool:
    """Runs one statement; see ``ports.Warehouse.stream``, and ``Asking.limited`` for the schemas."""
    with _running(asking, question, schemas) as answer:
        return hand_over(answer, question.limits, take)


@contextlib.contextmanager
def _running(asking: Asking, question: Question, schemas: Iterable[str]) -> Iterator[Answer]:
    """Runs a statement for the time of the block, in which its answer is read.

    Raises:
        InvalidArgument: it is not allowed, or fails.
        TooLarge: it takes longer or more memory than allowed.
    """
    statement, by_copy = _one_statement(question)
    session, seconds = asking.session, question.limits.seconds
    ends = time.monotonic() + seconds
    try:
        with session.transaction("transaction read only", keep=False):
            session.rows(_LIMITS, str(max(1, round(seconds * 1_000))))
            with asking.limited(question, schemas), session.reading(statement, by_copy=by_copy) as answer:
                yield answer
    except Refused as error:
        if error.state == CANCELLED or time.monotonic() >= ends:
            raise over("seconds", seconds) from None
        if error.state == OUT_OF_MEMORY:
            text = "the query needs more memory than there is"
            raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, text, metadata={"limit": "memory"}) from None
        raise refused(str(error)) from None


def _one_statement(question: Question) -> tuple[str, bool]:
    """The statement as it is run, and whether its rows can be copied out."""
    found = _FIRST_WORD.match(question.sql)
    word = found[1].lower() if found else ""
    if word not in _SELECTS | _OTHERS or "\0" in question.sql:
        raise refused("only SELECT, WITH, VALUES, TABLE, SHOW and EXPLAIN are allowed")
    return question.sql.rstrip().rstrip(";") + "\n", word in _SELECTS


def _rows(answer: Answer) -> Iterator[Sequence[Any]]:
    for batch in answer:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _type_name(field: Any) -> str:
    """Postgres's own name of a column's type, which the driver hands on."""
    told: bytes | None = (field.metadata or {}).get(b"POSTGRESQL:type")
    return told.decode() if told else str(field.type)
