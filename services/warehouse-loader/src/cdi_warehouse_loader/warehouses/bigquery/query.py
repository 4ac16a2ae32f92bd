"""Queries of people on BigQuery: one SELECT, with limits.

BigQuery itself says what a text is, in a run that does nothing (``dryRun``): only what it calls a SELECT is run. What the SELECT may reach
is what the account may read; ``query_credentials`` of the URL are for one that reads the datasets and nothing else.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa
from google.api_core import exceptions
from google.cloud import bigquery

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import TooLarge, Unavailable
from cdi_warehouse_loader.ports import Question, Rows
from cdi_warehouse_loader.warehouses.answers import STREAMED_ROWS, hand_over, over, refused, rows_within
from cdi_warehouse_loader.warehouses.bigquery.connection import Connection, Refused, translated

_TOO_MUCH: Final = frozenset({"bytesBilledLimitExceeded", "resourcesExceeded", "responseTooLarge"})
_SELECT: Final = "SELECT"


def run_query(connection: Connection, question: Question) -> Rows:
    """Runs one statement; see ``ports.Warehouse.query``."""
    with _running(connection, question) as answer:
        columns = [(field.name, str(field.field_type)) for field in answer.schema]
        values, truncated = rows_within((row.values() for row in answer), question.limits)
    return Rows(columns, values, truncated)


def stream_query(connection: Connection, question: Question, take: Callable[[Any], None]) -> bool:
    """Runs one statement; see ``ports.Warehouse.stream``."""
    with _running(connection, question) as answer:
        return hand_over(_Batches(answer), question.limits, take)


class _Batches:
    """An answer as Arrow record batches, a page after the other, over the same REST API as everything else."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.schema = pa.schema([])

    def __iter__(self) -> Iterator[Any]:
        for batch in self._answer.to_arrow_iterable(max_queue_size=1):
            self.schema = batch.schema
            yield batch


@contextlib.contextmanager
def _running(connection: Connection, question: Question) -> Iterator[Any]:
    """Runs a statement for the time of the block, in which its answer is read.

    Raises:
        InvalidArgument: it is not allowed, or fails.
        TooLarge: it takes longer or costs more than allowed.
        Unavailable: BigQuery cannot now.
    """
    if question.purposes:
        raise refused("BigQuery does not limit queries to purposes")
    seconds = question.limits.seconds
    ends = time.monotonic() + seconds
    try:
        with translated():
            _check(connection, question.sql)
            job = connection.job(question.sql, _config(connection, question))
            try:
                answer = job.result(page_size=STREAMED_ROWS, timeout=max(0.001, ends - time.monotonic()), retry=None, job_retry=None)
            except concurrent.futures.TimeoutError:
                with contextlib.suppress(exceptions.GoogleAPICallError):
                    job.cancel(retry=None)
                raise over("seconds", seconds) from None
            yield answer
    except Unavailable:
        if time.monotonic() >= ends:
            raise over("seconds", seconds) from None
        raise
    except Refused as error:
        if error.reason in _TOO_MUCH:
            raise TooLarge(error_pb2.ERROR_REASON_QUERY_REFUSED, "the query costs more than it may", metadata={"limit": "bytes"}) from None
        raise refused(f"the query failed: {error.reason}") from None


def _check(connection: Connection, sql: str) -> None:
    """Whether it is one SELECT. Nothing has been read then, so the message can quote no value."""
    try:
        with translated():
            config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, default_dataset=_default(connection))
            kind = connection.client.query(sql, job_config=config, job_retry=None).statement_type
    except Refused as error:
        raise refused(error.said.splitlines()[0][:500] if error.said else "not SQL") from None
    if kind != _SELECT:
        raise refused("only one SELECT is allowed")


def _config(connection: Connection, question: Question) -> Any:
    return bigquery.QueryJobConfig(
        default_dataset=_default(connection),
        maximum_bytes_billed=connection.address.bytes_billed,
        job_timeout_ms=round(question.limits.seconds * 1_000),
        use_query_cache=False,
    )


def _default(connection: Connection) -> Any:
    return bigquery.DatasetReference(connection.address.project, connection.address.dataset)
