"""The columns that tables have by themselves: Segment's, and those that CDI adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType

TEXT, TIME, BIGINT, INTEGER, BOOLEAN = (
    ColumnType.TEXT,
    ColumnType.TIMESTAMP,
    ColumnType.BIGINT,
    ColumnType.INTEGER,
    ColumnType.BOOLEAN,
)

Columns = Mapping[str, ColumnType]

MAX_COLUMNS: Final = 1_000
"""Columns of one table; further properties go to ``_unmapped`` as JSON."""

SEQUENCE_FACTOR: Final = 1_024
"""``event_seq`` = sequence of the message × this + position in the message (a message holds at most 1,000 events)."""

GRAPH_SEQUENCE_FACTOR: Final = 1 << 20
"""``seq`` = sequence of the message × this + place of the change in the message. No message of the bus holds so many changes: each takes
more than 64 bytes, and NATS takes at most 64 MiB."""

EVENT_COLUMNS: Final[Columns] = {
    "id": TEXT,
    "workspace_id": TEXT,
    "source_id": TEXT,
    "user_id": TEXT,
    "anonymous_id": TEXT,
    "profile_id": TEXT,
    "original_timestamp": TIME,
    "sent_at": TIME,
    "received_at": TIME,
    "timestamp": TIME,
    "uuid_ts": TIME,
    "loaded_at": TIME,
    "partition": INTEGER,
    "event_seq": BIGINT,
    "consent_purposes": TEXT,
    "demoted_identifiers": TEXT,
}

ENRICHMENT_COLUMNS: Final[Columns] = {
    "ua_browser": TEXT,
    "ua_browser_version": TEXT,
    "ua_os": TEXT,
    "ua_os_version": TEXT,
    "ua_device": TEXT,
    "ua_bot": BOOLEAN,
    "campaign_source": TEXT,
    "campaign_medium": TEXT,
    "campaign_name": TEXT,
    "campaign_term": TEXT,
    "campaign_content": TEXT,
    "campaign_click_id_type": TEXT,
    "campaign_click_id": TEXT,
    "referrer_medium": TEXT,
    "referrer_source": TEXT,
    "referrer_host": TEXT,
    "referrer_term": TEXT,
    "geo_country": TEXT,
    "geo_region": TEXT,
    "geo_city": TEXT,
    "email_valid_syntax": BOOLEAN,
    "email_disposable": BOOLEAN,
    "email_role_account": BOOLEAN,
    "email_free_provider": BOOLEAN,
}

SIGNAL_COLUMNS: Final[Mapping[str, str]] = {
    "context_do_not_track": "do_not_track",
    "context_global_privacy_control": "global_privacy_control",
    "context_bot": "bot",
}
"""Columns of what the collector says of a request's sender, with the field of ``ClientSignals`` that each comes from."""

_NAMED: Final[Columns] = {"event": TEXT, "event_text": TEXT}
_VIEW: Final[Columns] = {"name": TEXT, "category": TEXT}
_WHO: Final[Columns] = {
    "id": TEXT,
    "workspace_id": TEXT,
    "received_at": TIME,
    "timestamp": TIME,
    "uuid_ts": TIME,
    "loaded_at": TIME,
}

OWN_COLUMNS: Final[Mapping[str, Columns]] = {
    naming.TRACKS: _NAMED,
    naming.IDENTIFIES: {},
    naming.GROUPS: {"group_id": TEXT},
    naming.PAGES: _VIEW,
    naming.SCREENS: _VIEW,
    naming.ALIASES: {"previous_id": TEXT},
}
"""What each fixed event table has beside the columns of every event."""

USERS_COLUMNS: Final[Columns] = {**_WHO, "profile_id": TEXT}
"""One row per workspace and user id, which is ``id``."""

ACCOUNTS_COLUMNS: Final[Columns] = _WHO
"""One row per workspace and group id, which is ``id``."""

DISCARDS_COLUMNS: Final[Columns] = {
    "message_id": TEXT,
    "table_name": TEXT,
    "column_name": TEXT,
    "column_value": TEXT,
    "reason": TEXT,
    "received_at": TIME,
}

REJECTED_COLUMNS: Final[Columns] = {
    "rejection_id": TEXT,
    "workspace_id": TEXT,
    "source_id": TEXT,
    "message_id": TEXT,
    "type": TEXT,
    "name": TEXT,
    "failure_type": TEXT,
    "reason": TEXT,
    "description": TEXT,
    "stage": TEXT,
    "stage_version": TEXT,
    "received_at": TIME,
    "rejected_at": TIME,
    "payload": TEXT,
    "payload_encoding": TEXT,
    "payload_truncated": BOOLEAN,
    "violation_paths": TEXT,
    "loaded_at": TIME,
}
"""``payload`` is the text itself (``payload_encoding`` = ``text``) or base64 when it is not UTF-8 (``base64``)."""

_CHANGE: Final[Columns] = {"triggering_event_id": TEXT, "timestamp": TIME, "seq": BIGINT, "loaded_at": TIME}
"""What every row about the identity graph ends with. ``seq`` orders all of them, also between the tables."""

ID_GRAPH_COLUMNS: Final[Columns] = {
    "workspace_id": TEXT,
    "profile_id": TEXT,
    "canonical_profile_id": TEXT,
    "triggering_event_type": TEXT,
    **_CHANGE,
}

MAPPING_COLUMNS: Final[Columns] = {
    "workspace_id": TEXT,
    "external_id_type": TEXT,
    "external_id_value": TEXT,
    "external_id_hash": TEXT,
    "profile_id": TEXT,
    "operation": TEXT,
    **_CHANGE,
}
"""``external_id_hash`` is the SHA-256 of the value, in hexadecimal; ``operation`` is ``CREATED`` or ``REMOVED``."""

TRAIT_COLUMNS: Final[Columns] = {
    "workspace_id": TEXT,
    "profile_id": TEXT,
    "name": TEXT,
    "value": TEXT,
    "event_timestamp": TIME,
    **_CHANGE,
}
"""``value`` is JSON text, NULL when the profile no longer has the trait."""

GRAPH_TABLES: Final[Mapping[str, Columns]] = {
    naming.ID_GRAPH_UPDATES: ID_GRAPH_COLUMNS,
    naming.EXTERNAL_ID_MAPPING_UPDATES: MAPPING_COLUMNS,
    naming.PROFILE_TRAITS_UPDATES: TRAIT_COLUMNS,
}
"""The tables that changes of the identity graph fill."""

STARTING_TABLES: Final[Mapping[str, Columns]] = {
    **{table: {**EVENT_COLUMNS, **own, **ENRICHMENT_COLUMNS} for table, own in OWN_COLUMNS.items()},
    naming.USERS: USERS_COLUMNS,
    naming.ACCOUNTS: ACCOUNTS_COLUMNS,
    naming.DISCARDS: DISCARDS_COLUMNS,
    naming.REJECTED_EVENTS: REJECTED_COLUMNS,
    **GRAPH_TABLES,
}
"""What a schema holds before the first event."""

TRACK_TABLE_COLUMNS: Final[Columns] = {**EVENT_COLUMNS, **_NAMED}
"""What the table of a track event begins with. Enrichment columns appear in it with the first value: each column of a table costs every
load that touches it memory and time, and there may be hundreds of such tables."""


_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    naming.USERS: ("workspace_id", "id"),
    naming.ACCOUNTS: ("workspace_id", "id"),
    naming.DISCARDS: ("message_id", "table_name", "column_name", "reason", "column_value"),
    naming.REJECTED_EVENTS: ("workspace_id", "rejection_id"),
    naming.ID_GRAPH_UPDATES: ("seq",),
    naming.EXTERNAL_ID_MAPPING_UPDATES: ("seq",),
    naming.PROFILE_TRAITS_UPDATES: ("seq",),
}
_EVENT_KEY: Final = ("partition", "event_seq")


def key_of(table: str) -> tuple[str, ...]:
    """What tells the rows of a table apart; of events, their place."""
    return _KEYS.get(table, _EVENT_KEY)


def is_event_table(table: str, columns: Columns) -> bool:
    """Whether a table has one row per event; views of events do not count."""
    return table not in naming.VIEWS and "event_seq" in columns


def filled_by_events(tables: Mapping[str, Columns]) -> list[str]:
    """The tables of a schema that events bring rows into."""
    others = (naming.USERS, naming.ACCOUNTS, naming.DISCARDS)
    return [table for table, columns in tables.items() if table in others or is_event_table(table, columns)]


CANONICAL_PROFILE_ID: Final = "canonical_profile_id"
"""What the views of the identity graph add to the columns of an event."""

_RESERVED: Final = frozenset(EVENT_COLUMNS) | frozenset(ENRICHMENT_COLUMNS) | frozenset(_NAMED) | {CANONICAL_PROFILE_ID}

PROPERTY_NAMES: Final = naming.ColumnNames(_RESERVED)
VIEW_NAMES: Final = naming.ColumnNames(_RESERVED | frozenset(_VIEW))
GROUP_NAMES: Final = naming.ColumnNames(_RESERVED | {"group_id"})
CONTEXT_NAMES: Final = naming.ContextNames(frozenset(SIGNAL_COLUMNS))
"""Column names per kind of table: a value that would be in one of the table's own columns gets one more ``_`` in front."""
