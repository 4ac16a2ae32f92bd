"""Names of tables and columns, from whatever a client wrote.

Rules (reference: Segment's warehouse schemas; docs of this service): camelCase is split, letters become lower case, every run of
characters that are neither letters nor digits becomes one ``_``. A leading digit and a reserved word of SQL get a ``_`` in front.
Letters of any script are kept. At most 63 bytes (Postgres): longer names are cut and end in a hash of the whole name, and so do names
of which nothing is left.

Two event names that differ only in case and punctuation share a table, as with Segment; ``event_text`` tells them apart.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import xxhash

MAX_NAME_BYTES: Final = 63

TRACKS: Final = "tracks"
IDENTIFIES: Final = "identifies"
USERS: Final = "users"
GROUPS: Final = "groups"
ACCOUNTS: Final = "accounts"
PAGES: Final = "pages"
SCREENS: Final = "screens"
ALIASES: Final = "aliases"
DISCARDS: Final = "discards"
REJECTED_EVENTS: Final = "rejected_events"
ID_GRAPH_UPDATES: Final = "id_graph_updates"
EXTERNAL_ID_MAPPING_UPDATES: Final = "external_id_mapping_updates"
PROFILE_TRAITS_UPDATES: Final = "profile_traits_updates"
PROFILE_MERGES: Final = "profile_merges"
USER_IDENTIFIERS: Final = "user_identifiers"
USER_TRAITS: Final = "user_traits"
SEPARATED_IDENTIFIERS: Final = "separated_identifiers"
EVENTS_BY_PERSON: Final = "events_by_person"
BY_PERSON: Final = "by_person"

VIEWS: Final = frozenset({PROFILE_MERGES, USER_IDENTIFIERS, USER_TRAITS, SEPARATED_IDENTIFIERS, EVENTS_BY_PERSON})
"""Views of the identity graph; ``BY_PERSON`` is a macro and has no table's name."""

_RESERVED_TABLES: Final = VIEWS | {
    TRACKS, IDENTIFIES, USERS, GROUPS, ACCOUNTS, PAGES, SCREENS, ALIASES, DISCARDS, REJECTED_EVENTS,
    ID_GRAPH_UPDATES, EXTERNAL_ID_MAPPING_UPDATES, PROFILE_TRAITS_UPDATES, "events",
}  # fmt: skip
"""Tables and views that are not named by an event."""

UNMAPPED: Final = "_unmapped"

_SQL_WORDS_TEXT: Final = """
all analyse analyze and any array as asc asymmetric authorization between binary both case cast check collate collation column
concurrently constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp
current_user default deferrable desc describe distinct do else end except false fetch for foreign freeze from full grant group
having ilike in initially inner intersect into is isnull join lambda lateral leading left like limit localtime localtimestamp
natural not notnull null offset on only or order outer overlaps pivot pivot_longer pivot_wider placing primary qualify references
returning right select session_user show similar some summarize symmetric system_user table tablesample then to trailing true
union unique unpivot user using variadic verbose when where window with
cmax cmin ctid tableoid xmax xmin
"""
_SQL_WORDS: Final = frozenset(_SQL_WORDS_TEXT.split())
"""Reserved words of DuckDB 2.0 and PostgreSQL 18, and the columns that every table of PostgreSQL has by itself."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER = re.compile(r"[\W_]+")
_CACHE_NAMES: Final = 50_000
_EVENT_PREFIX: Final = "event_"


def snake(text: str) -> str:
    """``text`` in snake case; may be empty, may start with a digit, may be reserved."""
    normal = unicodedata.normalize("NFC", text)
    return _OTHER.sub("_", _WORD_START.sub("_", normal)).lower()


def table_name(event_name: str) -> str:
    """The table of a track event.

    A name that would be one of the fixed tables gets ``event_`` in front ("Users" → ``event_users``), and so does one that already has
    it ("Event Users" → ``event_event_users``), so that no event ever lands in a fixed table or in another event's.
    """
    name = snake(event_name).strip("_")
    if not name:
        return f"{_EVENT_PREFIX}{_hash(event_name)}"
    core = name
    while core.startswith(_EVENT_PREFIX):
        core = core.removeprefix(_EVENT_PREFIX)
    if core in _RESERVED_TABLES:
        name = _EVENT_PREFIX + name
    return _fit(_legal(name), event_name)


class ColumnNames:
    """Column names of one kind of table, remembered.

    Args:
        reserved: columns that the table has by itself. A property of that name is kept with one more ``_`` in front, and so is
            one that starts with ``context_``: those columns belong to the event's context.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self._known: dict[str, str] = {}

    def __getitem__(self, path: str) -> str:
        """The column of a property; nested keys are joined before, with any character that is no letter."""
        name = self._known.get(path)
        if name is None:
            if len(self._known) >= _CACHE_NAMES:
                self._known.clear()
            name = self._known[path] = self._name(path)
        return name

    def _name(self, path: str) -> str:
        name = snake(path)
        bare = name.strip("_")
        if not bare:
            return f"column_{_hash(path)}"
        if bare in self._reserved or bare.startswith("context_") or name == UNMAPPED:
            name = "_" + name
        return _fit(_legal(name.rstrip("_")), path)


class ContextNames:
    """Column names of the context: ``context_`` and the path, remembered.

    Args:
        reserved: columns that are not the client's. A value that would get one of them has one more ``_`` before its path.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self._known: dict[str, str] = {}

    def __getitem__(self, path: str) -> str:
        """The column of a context value."""
        name = self._known.get(path)
        if name is None:
            if len(self._known) >= _CACHE_NAMES:
                self._known.clear()
            bare = snake(path).strip("_")
            name = f"context_{bare or _hash(path)}"
            if name in self._reserved:
                name = f"context__{bare}"
            name = self._known[path] = _fit(name, path)
        return name


def _legal(name: str) -> str:
    return "_" + name if name[0].isdigit() or name in _SQL_WORDS else name


def _fit(name: str, original: str) -> str:
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = _hash(original)
    kept = encoded[: MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore").rstrip("_")
    return f"{kept}_{digest}"


def _hash(text: str) -> str:
    return xxhash.xxh3_64_hexdigest(text.encode())[:8]
