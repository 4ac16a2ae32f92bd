"""The questions about a person's events, in the SQL of the embedded warehouse (DuckDB).

``QueryRows`` takes text only, so every value stands in it as a literal of ``literal`` and every name as one of ``quoted``; nothing else
that came from outside does. The layout is that of the loader's README: six tables of all events by type, one more table per track event
with its properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_identity.domain.history import EventSearch

TRACKS: Final = "tracks"
TRACK: Final = "track"

_TABLES: Final = {
    TRACK: (TRACKS, "event_text", "event"),
    "identify": ("identifies", "''", "'identifies'"),
    "page": ("pages", "name", "'pages'"),
    "screen": ("screens", "name", "'screens'"),
    "group": ("groups", "''", "'groups'"),
    "alias": ("aliases", "''", "'aliases'"),
}
"""Event type → its table, the column of the name, and what ``PastEvent.stem`` is."""

CATALOG: Final = f"""select schema_name, table_name, column_name from duckdb_columns()
where database_name = current_database()
    and (column_name = 'event_text' or (table_name = '{TRACKS}' and not starts_with(column_name, 'context_')))
order by table_name <> '{TRACKS}'"""
"""The tables of events, and the columns that all of them have."""

_SEARCH: Final = """with {lists}
select type, id, name, source_id, moment, profile_id, user_id, anonymous_id, min(place) as place, stem from ({tables})
group by all order by moment desc, id desc limit {limit:d}"""

_SEARCH_TABLE: Final = """select '{type}' as type, {schema} as place, id, {name} as name, source_id, epoch_us("timestamp") as moment,
    profile_id, user_id, anonymous_id, {stem} as stem
from {table}
where workspace_id = {workspace} and "timestamp" >= make_timestamptz({since:d}) and {whose}{further}"""

# The ids of the graph are UUIDs of version 7. Those of version 5 stand for events that may not be linked to a person.
LINKED: Final = "substr(profile_id, 15, 1) = '7'"

_PROPERTIES: Final = """select json_merge_patch('{{}}', to_json(t))::varchar as properties from (
    select columns(lambda c: c = 'id' or not (starts_with(c, 'context_') or list_contains({own}, c))) from {table}
    where workspace_id = {workspace} and "timestamp" >= make_timestamptz({oldest:d}) and "timestamp" <= make_timestamptz({newest:d})
        and id in ({ids})) t"""

# A name over 63 bytes is cut and ends in a hash of the whole.
_MAX_NAME_BYTES: Final = 63
_HASH: Final = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class EventRows:
    """Rows of one table.

    Attributes:
        schema: of the table.
        table: its name.
        own: columns that are no properties.
        ids: message ids of the rows.
        oldest_us: time of the oldest row, microseconds since 1970.
        newest_us: time of the newest row.
    """

    schema: str
    table: str
    own: Sequence[str]
    ids: Sequence[str]
    oldest_us: int
    newest_us: int


def literal(text: str) -> str:
    """A text as an SQL literal. A NUL character cannot stand in a statement; it is put together."""
    quoted_text = "'" + text.replace("'", "''") + "'"
    return "(" + quoted_text.replace("\0", "' || chr(0) || '") + ")" if "\0" in text else quoted_text


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def search_statement(wanted: EventSearch, schemas: Sequence[str], limit: int) -> str:
    """Events that fit, newest first: type, id, name, source, microseconds, profile, user, anonymous id, schema, stem."""
    given = {"p": wanted.profile_ids, "u": wanted.user_ids, "a": wanted.anonymous_ids, "n": wanted.names}
    lists = ", ".join(f"{name} as (select unnest({_list(values)}) as v)" for name, values in given.items())
    whose = f"(profile_id in (select v from p) or user_id in (select v from u) or anonymous_id in (select v from a)) and {LINKED}"
    before = ""
    if wanted.before is not None:
        moment, message_id = f"make_timestamptz({wanted.before.event_us:d})", literal(wanted.before.message_id)
        before = f' and "timestamp" <= {moment} and ("timestamp" < {moment} or id < {message_id})'
    tables = [
        _SEARCH_TABLE.format(
            type=kind,
            schema=literal(schema),
            name=name,
            stem=stem,
            table=f"{quoted(schema)}.{quoted(table)}",
            workspace=literal(wanted.workspace_id),
            since=wanted.since_us,
            whose=whose,
            further=before + (f" and {name} in (select v from n)" if wanted.names else ""),
        )
        for schema in schemas
        for kind, (table, name, stem) in _TABLES.items()
    ]
    return _SEARCH.format(lists=lists, tables=" union all ".join(tables), limit=limit)


def properties_statement(workspace_id: str, tables: Sequence[EventRows]) -> str:
    """The properties of events: one JSON object per row, without what is null, with the message id as ``id``."""
    return " union all ".join(
        _PROPERTIES.format(
            own=_list(rows.own),
            table=f"{quoted(rows.schema)}.{quoted(rows.table)}",
            workspace=literal(workspace_id),
            oldest=rows.oldest_us,
            newest=rows.newest_us,
            ids=", ".join(map(literal, rows.ids)),
        )
        for rows in tables
    )


def tables_of_track(stem: str, tables: Iterable[str]) -> Sequence[str]:
    """Those of the tables that may hold a track event; mostly one.

    The loader's rules (its README): the name in snake case, with ``_`` in front of what SQL would not take for a name, ``event_`` in
    front of what is another table's, cut and with a hash at its end when it is long; of a name without letters only a hash is left.
    """
    if not stem:
        return [table for table in tables if table.startswith("event_") and _HASH.fullmatch(table.removeprefix("event_"))]
    names = {stem, f"_{stem}", f"event_{stem}"}
    cut = {f"{_cut(name)}_" for name in names if len(name.encode()) > _MAX_NAME_BYTES}
    return [table for table in tables if table in names or (cut and table[:-8] in cut and _HASH.fullmatch(table[-8:]))]


def _cut(name: str) -> str:
    return name.encode()[: _MAX_NAME_BYTES - 9].decode(errors="ignore").rstrip("_")


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(literal, values))}]::varchar[]"
