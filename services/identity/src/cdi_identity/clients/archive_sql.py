"""The questions for events of the past, in the SQL of the embedded warehouse (DuckDB); see ``warehouse_sql`` for how values stand in it.

A path below an event is a column of its table by the loader's rules (its README): nested names joined in snake case, ``context_`` in front
of those of the context, ``_`` in front of what is an own column of every table or no name in SQL. Names over 63 bytes are not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_identity.clients.warehouse_sql import LINKED, literal, quoted
from cdi_identity.domain.computed_traits import ComputedTrait

TABLES: Final = {"identify": "identifies", "page": "pages", "screen": "screens", "group": "groups"}
"""Event type → the table of its events; tracks have one per event."""

DAY_US: Final = 86_400_000_000

_NAMES: Final = {"track": "event_text", "page": "name", "screen": "name"}
"""Event type → the column of the event's name."""

_COLUMNS: Final = """select schema_name, table_name, column_name from duckdb_columns()
where database_name = current_database() and not internal and (schema_name, table_name, column_name) > ({after})
order by all"""

_STEMS: Final = """select distinct event from {table} where workspace_id = {workspace} and event is not null{named}"""

_DAYS: Final = """select distinct epoch_us("timestamp") // {day:d} * {day:d} as start from {table}
where {matching} and "timestamp" >= make_timestamptz({since:d}) order by start limit 10000"""

_PAGE: Final = """select id, epoch_us("timestamp"), profile_id, user_id, anonymous_id, {name}, demoted_identifiers{values} from {table}
where {matching} and "timestamp" >= make_timestamptz({since:d}) and "timestamp" < make_timestamptz({end:d})
    and ("timestamp" > make_timestamptz({since:d}) or id > {after})
order by "timestamp", id limit {limit:d}"""

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER: Final = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class EventTable:
    """A table with events of a definition.

    Attributes:
        schema: of the table.
        table: its name.
        columns: path and column of what the definition looks at, as far as there is a column.
    """

    schema: str
    table: str
    columns: Sequence[tuple[str, str]]

    @property
    def quoted(self) -> str:
        """The table in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"


def event_table(trait: ComputedTrait, schema: str, table: str, columns: Collection[str], own: Collection[str]) -> EventTable:
    """A table as a definition looks at it.

    Args:
        trait: the definition.
        schema: of the table.
        table: its name.
        columns: that it has.
        own: columns that every table of events has beside properties.
    """
    found = [(path, column) for path in trait.paths if (column := _column(path, columns, own)) is not None]
    return EventTable(schema, table, found)


def columns_statement(after: Sequence[str]) -> str:
    """Schema, table and column of everything, in this order, after a place in it."""
    return _COLUMNS.format(after=", ".join(map(literal, after)))


def stems_statement(trait: ComputedTrait, schema: str) -> str:
    """The names in snake case of the track events of a definition: what the names of their tables are made of."""
    return _STEMS.format(table=f"{quoted(schema)}.tracks", workspace=literal(trait.workspace_id), named=_named(trait))


def days_statement(trait: ComputedTrait, table: EventTable, since_us: int) -> str:
    """The days since a time that have events, each as microseconds since 1970."""
    return _DAYS.format(day=DAY_US, table=table.quoted, matching=_matching(trait), since=since_us)


def page_statement(trait: ComputedTrait, table: EventTable, after: tuple[int, str], end_us: int, limit: int) -> str:
    """Events after a place in the order of time and message id, before a time.

    Returns rows of message id, microseconds, profile, user and anonymous id, name, left-out types (JSON), and the values of the table's
    columns as JSON.
    """
    since_us, after_id = after
    return _PAGE.format(
        name=_NAMES.get(trait.event_type, "''"),
        values="".join(f", to_json({quoted(column)})::varchar" for _, column in table.columns),
        table=table.quoted,
        matching=_matching(trait),
        since=since_us,
        end=end_us,
        after=literal(after_id),
        limit=limit,
    )


def _matching(trait: ComputedTrait) -> str:
    return f"workspace_id = {literal(trait.workspace_id)} and {LINKED}{_named(trait)}"


def _named(trait: ComputedTrait) -> str:
    if not trait.event_names:
        return ""
    return f" and {_NAMES[trait.event_type]} in ({', '.join(map(literal, trait.event_names))})"


def _column(path: str, columns: Collection[str], own: Collection[str]) -> str | None:
    root, _, rest = path.partition(".")
    name = _snake(rest)
    bare = name.strip("_")
    if root == "context":
        names: Sequence[str] = (f"context_{bare}",)
    elif bare in own or bare.startswith("context_"):
        names = (f"_{name}",)
    else:
        names = (name.rstrip("_"), f"_{name.rstrip('_')}")
    return next((each for each in names if each in columns), None)


def _snake(text: str) -> str:
    return _OTHER.sub("_", _WORD_START.sub("_", unicodedata.normalize("NFC", text))).lower()
