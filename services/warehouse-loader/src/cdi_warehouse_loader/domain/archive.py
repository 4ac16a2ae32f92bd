"""The archive: everything that was accepted, one row per event, in a schema of its own, as the long memory beyond the streams.

A row holds the enriched event as its message has it, so that any warehouse can be filled from it as from the stream, and the columns by
which it is found: its place, its time, its person. Rejected events and changes of the identity graph are there as in other schemas.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
import pyarrow as pa

from cdi.event.v1 import event_pb2
from cdi_kernel.shallow import shallow
from cdi_warehouse_loader.domain.columns import ARROW, ColumnType, record_batch
from cdi_warehouse_loader.domain.event_view import EventView
from cdi_warehouse_loader.domain.instants import microseconds
from cdi_warehouse_loader.domain.layout import Columns
from cdi_warehouse_loader.domain.load import TableLoad
from cdi_warehouse_loader.domain.rows import Item

SCHEMA: Final = "cdi_archive"
TABLE: Final = "events"
COLUMNS: Final[Columns] = {
    "id": ColumnType.TEXT,
    "workspace_id": ColumnType.TEXT,
    "source_id": ColumnType.TEXT,
    "user_id": ColumnType.TEXT,
    "anonymous_id": ColumnType.TEXT,
    "profile_id": ColumnType.TEXT,
    "email": ColumnType.TEXT,
    "context_traits_email": ColumnType.TEXT,
    "received_at": ColumnType.TIMESTAMP,
    "partition": ColumnType.INTEGER,
    "event_seq": ColumnType.BIGINT,
    "event": ColumnType.TEXT,
}
"""``event`` is a serialized ``cdi.event.v1.Event`` in base64. The others are those by which erasures and rebuilding find a row."""

_read_event: Final = cast(Callable[[bytes], EventView], shallow(event_pb2.Event, levels=1).FromString)


class _Email(msgspec.Struct):
    email: Any = None


class _Context(msgspec.Struct):
    traits: _Email | None = None


_traits = msgspec.json.Decoder(_Email).decode
_context = msgspec.json.Decoder(_Context).decode


def archive_load(items: Sequence[Item], tables: Mapping[str, Columns]) -> TableLoad:
    """The rows of some events.

    Args:
        items: the events with their places.
        tables: of the archive's schema so far.
    """
    events = [event for event, _, _ in items]
    rows = record_batch(
        COLUMNS,
        [
            [event.message_id for event in events],
            [event.workspace_id for event in events],
            [event.source_id for event in events],
            [event.user_id or None for event in events],
            [event.anonymous_id or None for event in events],
            [event_pb2.IdentityResult.FromString(event.identity).profile_id or None for event in events],
            [_email(event.traits) for event in events],
            [_email_of_context(event.context) for event in events],
            microseconds([event.received_time for event in events]),
            [partition for _, partition, _ in items],
            [event_seq for _, _, event_seq in items],
            [b64encode(event.SerializeToString()).decode() for event in events],
        ],
    )
    return TableLoad(SCHEMA, TABLE, rows, {} if TABLE in tables else COLUMNS)


def items_of(rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    """The events of rows of the archive, in their order within each partition.

    Args:
        rows: columns by name; engines differ in the case of names.
    """
    found = [{name.lower(): value for name, value in row.items()} for row in rows]
    found.sort(key=lambda row: (row["partition"], row["event_seq"]))
    return [(_read_event(b64decode(row["event"])), row["partition"], row["event_seq"]) for row in found]


def rows_of(columns: Columns, answer: Any, now_us: int) -> Any:
    """Rows of a table that any warehouse has in the same form, as they are loaded there.

    Args:
        columns: of that table.
        answer: its rows in the archive, as an Arrow table; engines differ in types, and in the case of names.
        now_us: time of the load.
    """
    places = {name.lower(): place for place, name in enumerate(answer.schema.names)}
    loaded = pa.array([now_us] * answer.num_rows, pa.int64())
    arrays = [
        (loaded if name == "loaded_at" else answer.column(places[name]).combine_chunks()).cast(ARROW[kind])
        for name, kind in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def _email(traits: bytes) -> str | None:
    try:
        found = _traits(traits).email if traits else None
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, str) else None


def _email_of_context(context: bytes) -> str | None:
    try:
        traits = _context(context).traits if context else None
    except msgspec.DecodeError:
        return None
    return traits.email if traits is not None and isinstance(traits.email, str) else None
