"""What the loader needs of a warehouse. All methods block: the application calls them in threads, never in the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cdi_warehouse_loader.domain.aggregates import Plan
from cdi_warehouse_loader.domain.clean_room import CleanRoom
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Tombstone
from cdi_warehouse_loader.domain.ledger import Entry
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.domain.planned_types import PlannedTypes
from cdi_warehouse_loader.domain.release import Answer, Noised
from cdi_warehouse_loader.domain.withholding import NeedsOf


class Change(StrEnum):
    """What can happen to tables; its value is what the history stores."""

    TABLE_ADDED = "table_added"
    COLUMN_ADDED = "column_added"
    COLUMN_WIDENED = "column_widened"


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """How much a query may cost.

    Attributes:
        rows: rows in the answer; more are left out and reported.
        size: bytes of the answer, roughly.
        seconds: time of execution.
    """

    rows: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Question:
    """A query of people.

    Attributes:
        sql: one read-only statement of the warehouse's own dialect.
        limits: what it may cost.
        purposes: only rows of events, and of people, for which all of these are granted are there for it; none: all rows are.
    """

    sql: str
    limits: QueryLimits
    purposes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer of a query.

    Attributes:
        columns: names and the warehouse's types.
        values: rows of JSON values; times, decimals and integers that a double cannot hold are text.
        truncated: there were more rows than allowed.
    """

    columns: Sequence[tuple[str, str]]
    values: Sequence[Sequence[Any]]
    truncated: bool


@dataclass(frozen=True, slots=True)
class LoadEntry:
    """A load in the log.

    Attributes:
        stream: what was loaded.
        started_us: when, microseconds since 1970.
        milliseconds: how long it took.
        events: events in it.
        rows: rows that it made.
        size: bytes of these rows in memory.
        tables: tables that it touched.
    """

    stream: str
    started_us: int
    milliseconds: float
    events: int
    rows: int
    size: int
    tables: int


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A change of the tables in the history.

    Attributes:
        changed_us: when, microseconds since 1970.
        schema: which schema.
        table: which table.
        column: which column; empty for a new table.
        change: what happened.
        type: of the column from then on; empty for a new table.
    """

    changed_us: int
    schema: str
    table: str
    column: str
    change: Change
    type: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What a query of a clean room counts, before noise: it never leaves the process.

    Attributes:
        groups: by keys, one number per measure of the plan; groups without rows are missing.
        outside: people of the table who fulfil the conditions in no row.
    """

    groups: Mapping[tuple[str, ...], Sequence[int]]
    outside: int


class Noise(Protocol):
    """Adds noise whose guarantee is measured, not assumed."""

    def laplace(self, values: Sequence[int], sensitivity: int, epsilon: float) -> Noised:
        """Noise on a vector of which one person can change so much in sum (L1). Blocks.

        Raises:
            Internal: the guarantee would be weaker than asked for.
        """
        ...


class CleanRooms(Protocol):
    """Clean rooms of a warehouse and the ledger of their queries; a write is durable when it returns.

    All but ``totals`` is called from the thread that loads, ``totals`` from that of queries.
    """

    def document(self, workspace_id: str, name: str) -> CleanRoom | None:
        """The document of a clean room."""
        ...

    def put_document(self, room: CleanRoom) -> None:
        """Stores a document in place of the one of its name."""
        ...

    def spent(self, workspace_id: str, clean_room: str, partner: str, since_us: int) -> int:
        """What a partner has paid since an instant, in millionths of epsilon."""
        ...

    def find(self, like: Entry, since_us: int) -> Entry | None:
        """The same query of the same partner and version of the document, paid since an instant."""
        ...

    def add(self, entry: Entry) -> Entry:
        """Pays a query; the entry with its id."""
        ...

    def settle(self, query_id: int, answer: Answer, now_us: int) -> Entry:
        """Stores the answer of a paid query unless it has one; the entry as it then is. Only that answer may leave."""
        ...

    def repeat(self, query_id: int) -> None:
        """Notes that an answer was given again."""
        ...

    def log(self, workspace_id: str, clean_room: str, partner: str, before: int, limit: int) -> Sequence[Entry]:
        """Entries, newest first, with ids below ``before``; of all partners when none is named."""
        ...

    def totals(self, plan: Plan, limits: QueryLimits) -> Totals:
        """Counts what a plan asks for, on the committed state, with what one person contributes bounded as ``Plan.sensitivity`` says.

        Raises:
            TooLarge: it takes longer or more memory than allowed.
        """
        ...


class PurposeReader(Protocol):
    """Knows what purposes say of warehouses."""

    async def needs(self, workspace_id: str) -> NeedsOf:
        """What the purposes of a workspace say now.

        Raises:
            Unavailable: nobody can tell at the moment.
        """
        ...


class PlanReader(Protocol):
    """Knows the tracking plans."""

    async def planned(self, workspace_id: str) -> PlannedTypes:
        """The types that the plans of a workspace give to columns.

        Raises:
            Unavailable: nobody can tell at the moment.
        """
        ...


class Pending(Protocol):
    """Knows how far readers are."""

    async def messages(self, stream: str, reader: str) -> int:
        """Messages of a stream that a reader has not settled.

        Raises:
            Unavailable: the bus is away.
        """
        ...

    async def is_past(self, where: StreamPartition, reader: str, sequence: int) -> bool:
        """Whether a reader gets no message of a partition any more up to a sequence that the stream has reached: each is settled, or gone.

        Raises:
            Unavailable: the bus is away.
        """
        ...


class Warehouse(Protocol):
    """One warehouse, open.

    ``query``, ``stream``, ``counts`` and ``holdings`` are called from one thread, one at a time, all others from another one. ``catalog``,
    ``positions`` and ``newest_erasure_us`` are read without asking the warehouse: they are as this process last saw them.

    Several processes may have it open where the engine allows that. What another one has loaded, or added to the tables, since this one
    last looked is found in ``load``, which then looks anew and does nothing.
    """

    @property
    def clean_rooms(self) -> CleanRooms | None:
        """Clean rooms and their ledger; ``None``: this kind of warehouse has none."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether one process at a time can have it open."""
        ...

    @property
    def broken(self) -> str | None:
        """Why this handle can do nothing any more and must be opened anew; ``None`` while it works."""
        ...

    @property
    def wants_reopening(self) -> bool:
        """Whether it keeps so much in memory of what it has loaded that it should be closed and opened again."""
        ...

    @property
    def catalog(self) -> Catalog:
        """Tables and columns as committed."""
        ...

    @property
    def positions(self) -> Mapping[StreamPartition, Position]:
        """How far each partition is loaded, as committed."""
        ...

    @property
    def newest_erasure_us(self) -> int:
        """When people were last erased, microseconds since 1970; 0: never. What is later cannot be of anybody erased."""
        ...

    def ensure_tables(self, schema: str) -> None:
        """Makes the schema and its starting tables if they are not there.

        Raises:
            Unavailable: the warehouse cannot now.
        """
        ...

    def load(self, load: Load, *, keep: bool = True) -> Sequence[TableLoad]:
        """Does all of a load in one transaction: when it returns, all is durable; when it raises, nothing was done.

        Args:
            load: what to do.
            keep: ``False`` tries everything and takes it back.

        Returns:
            The tables of the load, without their rows.

        Raises:
            OutOfMemory: the load is too large.
            Unavailable: the warehouse cannot now, or another process has been there since the load was planned.
            Exception: of the warehouse's driver when it refuses the values.
        """
        ...

    def existing(self, schema: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """Those of the values that the column holds already."""
        ...

    def counts(self) -> Mapping[CountKey, int]:
        """What became of all events that were ever loaded or left out."""
        ...

    def documents(self) -> Sequence[Document]:
        """Warehouse documents of all workspaces, by workspace and name."""
        ...

    def put_document(self, document: Document) -> None:
        """Stores a document in place of the one of its name."""
        ...

    def erase(self, erasures: Sequence[Erasure], now_us: int) -> Erased:
        """Deletes rows of people, all of them unless they are very many, and leaves tombstones, in one transaction.

        Raises:
            Unavailable: the warehouse cannot now; nothing was done.
        """
        ...

    def tombstones(self, digests: Sequence[bytes]) -> Mapping[bytes, Tombstone]:
        """Those of the digests that have a tombstone."""
        ...

    def holdings(self, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
        """Hands over all rows of a person, as JSON objects, in pieces, by ``<schema>.<table>``."""
        ...

    def oldest_unrewritten_us(self) -> int:
        """When the first rows were erased that still lie in the file, unreadable, microseconds since 1970; 0: there are none."""
        ...

    def query(self, question: Question) -> Rows:
        """Runs one read-only statement on the committed state.

        Raises:
            InvalidArgument: not one read-only statement, or it fails, or this kind of warehouse cannot see to the purposes.
            TooLarge: it takes longer or answers more than allowed.
        """
        ...

    def stream(self, question: Question, take: Callable[[Any], None]) -> bool:
        """As ``query``, in Arrow record batches.

        Args:
            question: what is asked.
            take: gets the batches, at least one, which may be without rows; what it raises ends the query.

        Returns:
            Whether there were more rows than allowed.
        """
        ...

    def place(self, schema: str, table: str) -> str:
        """A table or view as it stands in a statement, whatever its name. Asks nobody."""
        ...

    def literal(self, text: str) -> str:
        """A text as it stands in a statement: what a quote or a backslash says there is an engine's own. Asks nobody."""
        ...

    def loads(self, limit: int) -> Sequence[LoadEntry]:
        """The newest entries of the log of loads, newest first; it goes back two weeks."""
        ...

    def schema_changes(self, schema: str) -> Sequence[SchemaChange]:
        """How the tables of a schema came to be as they are, oldest first."""
        ...

    def close(self) -> None:
        """Lets go of the warehouse; a second call does nothing."""
        ...
