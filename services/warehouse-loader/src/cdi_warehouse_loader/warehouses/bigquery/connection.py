"""The way to BigQuery: its URL, jobs, rows, and what its errors mean.

Every statement is a job whose name is made here. So a request whose answer was lost can be sent again: BigQuery then says that it has the
job, and the job says what became of it. Deliberately absent: the library's own way of running a failed job again under another name.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

import requests
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from cdi_kernel.faults import Unavailable

DEPENDENCY: Final = "warehouse"
DEFAULT_DATASET: Final = "main"
STAGING: Final = "_cdi_staging"

_BYTES_BILLED: Final = 100_000_000_000
_JOB_SECONDS: Final = 600.0
_ANSWER_SECONDS: Final = 60.0
_RETRY: Final = DEFAULT_RETRY.with_timeout(30.0)
_RETRY_SECONDS: Final = 1.0
_CONFLICTS: Final = ("due to concurrent update", "concurrent modification")
_OF_VALUES: Final = "invalid"
_TOO_LARGE: Final = "responseTooLarge"
_PASSING: Final = (
    exceptions.GoogleAPIError,
    requests.exceptions.RequestException,
    auth_exceptions.GoogleAuthError,
    concurrent.futures.TimeoutError,
)
"""What says nothing of a statement or its values, unless it is a ``ClientError``: the network, the service, jobs that were stopped."""

_NOT_NOW: Final = (exceptions.Forbidden, exceptions.Unauthorized, exceptions.TooManyRequests)
"""Errors of the client that say nothing either: quotas and permissions."""


class Refused(Exception):
    """BigQuery does not want a statement or values. The text quotes neither.

    Attributes:
        reason: BigQuery's word for it.
        said: its message, which may quote a value of a row.
    """

    def __init__(self, error: Any) -> None:
        self.reason = _reason(error)
        self.said = str(getattr(error, "message", error))
        super().__init__(f"BigQuery refuses it: {self.reason}")

    @property
    def conflict(self) -> bool:
        """Another transaction changed the same tables, so this one was taken back."""
        return any(words in self.said for words in _CONFLICTS)


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says: ``bigquery://<project>/<dataset>?location=EU``.

    Attributes:
        project: that has the datasets, and pays.
        dataset: where a question's names without a dataset are looked for.
        location: of datasets and jobs; ``None``: BigQuery's default.
        credentials: file of a service account; ``None``: those of the environment.
        query_credentials: the same, of people's questions; ``None``: the loader's.
        bytes_billed: the most that a question may cost.
        endpoint: of an emulator, which is not asked for credentials; ``None``: BigQuery.
    """

    project: str
    dataset: str
    location: str | None
    credentials: str | None
    query_credentials: str | None
    bytes_billed: int
    endpoint: str | None

    @classmethod
    def of(cls, url: str) -> Address:
        """Reads a URL."""
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        return cls(
            project=unquote(parts.netloc),
            dataset=unquote(parts.path).strip("/") or DEFAULT_DATASET,
            location=given.get("location"),
            credentials=given.get("credentials"),
            query_credentials=given.get("query_credentials", given.get("credentials")),
            bytes_billed=int(given.get("max_bytes_billed", _BYTES_BILLED)),
            endpoint=given.get("endpoint"),
        )


class Connection:
    """Jobs of one thread.

    Args:
        address: where.
        credentials: file of a service account; ``None``: those of the environment.
    """

    def __init__(self, address: Address, credentials: str | None) -> None:
        self.address = address
        with translated():
            self.client = _client(address, credentials)

    def run(self, statement: str) -> None:
        """Runs a statement, or a script, that answers nothing.

        Raises:
            Refused: BigQuery does not want it.
            Unavailable: it cannot now, or whether it was done is not known.
        """
        self.rows(statement)

    def rows(self, statement: str, **parameters: Sequence[str]) -> list[tuple[Any, ...]]:
        """The answer of a statement, in memory; raises what ``run`` does.

        Args:
            statement: in which ``@name`` stands for a list.
            parameters: texts.
        """
        with self.reading(statement, **parameters) as answer:
            return [tuple(row.values()) for row in answer]

    @contextlib.contextmanager
    def reading(self, statement: str, **parameters: Sequence[str]) -> Iterator[Any]:
        """The answer of a statement as it comes, for the time of the block; raises what ``run`` does."""
        listed = [bigquery.ArrayQueryParameter(name, "STRING", list(values)) for name, values in parameters.items()]
        with translated():
            yield self.job(statement, bigquery.QueryJobConfig(query_parameters=listed)).result(
                retry=_RETRY, timeout=_JOB_SECONDS, job_retry=None
            )

    def job(self, statement: str, config: Any) -> Any:
        """Starts a query; one that was started already when the answer to that was lost is found."""
        name = _name()
        try:
            return self.client.query(statement, job_config=config, job_id=name, retry=_RETRY, job_retry=None, timeout=_ANSWER_SECONDS)
        except exceptions.Conflict:
            return self.client.get_job(name, retry=_RETRY, timeout=_ANSWER_SECONDS)

    def load(self, table: str, parquet: BinaryIO, columns: Mapping[str, str]) -> None:
        """Makes a table of the staging dataset from a Parquet file.

        Args:
            table: its name.
            parquet: the file, from its beginning.
            columns: types by name.

        Raises:
            Refused: BigQuery does not take a value.
            Unavailable: it cannot now.
        """
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,  # so that doing it twice is the same
            schema=[bigquery.SchemaField(name, kind) for name, kind in columns.items()],
        )
        place = f"{self.address.project}.{STAGING}.{table}"
        with _only_values(), translated():
            self.client.load_table_from_file(
                parquet, place, job_config=config, job_id=_name(), num_retries=3, timeout=_ANSWER_SECONDS
            ).result(retry=_RETRY, timeout=_JOB_SECONDS)

    def drop_staged(self, table: str) -> None:
        """Removes a table of the staging dataset; raises what ``run`` does."""
        with translated():
            self.client.delete_table(f"{self.address.project}.{STAGING}.{table}", retry=_RETRY, not_found_ok=True, timeout=_ANSWER_SECONDS)

    def close(self) -> None:
        """Lets go of it."""
        self.client.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns errors of the library into ``Refused`` and ``Unavailable``."""
    try:
        yield
    except exceptions.ClientError as error:
        if isinstance(error, _NOT_NOW) and _reason(error) != _TOO_LARGE:
            raise _unavailable(error) from error
        raise Refused(error) from error
    except _PASSING as error:
        raise _unavailable(error) from error


@contextlib.contextmanager
def passing(what: str = "BigQuery cannot now") -> Iterator[None]:
    """For all but rows on their way: whatever BigQuery refuses there says nothing of events."""
    try:
        yield
    except Refused as refused:
        raise Unavailable(DEPENDENCY, f"{what}: {refused.reason}", retry_after=_RETRY_SECONDS) from None


@contextlib.contextmanager
def _only_values() -> Iterator[None]:
    """A staging dataset that is gone, say, is no fault of the rows: these would be taken for broken, one by one."""
    try:
        yield
    except Refused as refused:
        if refused.reason == _OF_VALUES:
            raise
        raise Unavailable(DEPENDENCY, f"BigQuery cannot now: {refused.reason}", retry_after=_RETRY_SECONDS) from None


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(DEPENDENCY, f"BigQuery cannot now: {_reason(error)}", retry_after=_RETRY_SECONDS)


def _reason(error: Any) -> str:
    """BigQuery's word for an error, which quotes nothing."""
    details = getattr(error, "errors", None) or [{}]
    return str(details[0].get("reason") or type(error).__name__)


def _name() -> str:
    return f"cdi-{uuid4().hex}"


def _client(address: Address, credentials: str | None) -> Any:
    made: dict[str, Any] = {"project": address.project, "location": address.location}
    if address.endpoint:
        made |= {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": address.endpoint}}
    if credentials:
        return bigquery.Client.from_service_account_json(credentials, **made)
    return bigquery.Client(**made)
