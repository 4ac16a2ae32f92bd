"""Rows of the identity graph's tables: one per change, numbered so that "the latest" is well defined.

A message's changes are numbered in the order in which they are to be done: canonicals, mappings, traits. The number of a change is that of
its message in the stream and its place in it, so a message that is loaded again would get the same numbers, and a change has one number in
all warehouses, also where others of its message are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cdi.identity.v1 import profile_pb2
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import record_batch
from cdi_warehouse_loader.domain.instants import micros
from cdi_warehouse_loader.domain.layout import GRAPH_SEQUENCE_FACTOR, ID_GRAPH_COLUMNS, MAPPING_COLUMNS, TRAIT_COLUMNS
from cdi_warehouse_loader.domain.load import ColumnNeeds, TableLoad, Target
from cdi_warehouse_loader.domain.withholding import OWN_IDENTIFIERS, withheld_traits

_OPERATIONS: Final = {profile_pb2.MAPPING_OPERATION_CREATED: "CREATED", profile_pb2.MAPPING_OPERATION_REMOVED: "REMOVED"}
_T = TypeVar("_T")


class Numbered(NamedTuple):
    """A message of the stream with its sequence."""

    sequence: int
    changed: profile_pb2.GraphChanged


def graph_loads(schema: str, messages: Sequence[Numbered], now_us: int, *, personal: bool, columns: ColumnNeeds = ()) -> list[TableLoad]:
    """Rows of the messages, at most one load per table.

    Args:
        schema: the schema.
        messages: in stream order.
        now_us: time of the load.
        personal: identifiers and traits as well, not only which profile is part of which.
        columns: members of events that need purposes. A change comes without the person's, so what may rest on such a member is left out:
            traits of its name, and identifiers that are found in events' members.
    """
    made: list[tuple[str, Any]] = []
    canonicals = [message.changed.canonicals for message in messages]
    mappings = [message.changed.mappings for message in messages]
    traits = [message.changed.traits for message in messages]
    starts = [message.sequence * GRAPH_SEQUENCE_FACTOR for message in messages]
    if any(canonicals):
        made.append((naming.ID_GRAPH_UPDATES, _canonical_rows(messages, canonicals, starts, now_us)))
    starts = [start + len(before) for start, before in zip(starts, canonicals, strict=True)]
    if personal and any(mappings):
        made.append((naming.EXTERNAL_ID_MAPPING_UPDATES, _mapping_rows(messages, mappings, starts, now_us)))
    starts = [start + len(before) for start, before in zip(starts, mappings, strict=True)]
    if personal and any(traits):
        made.append((naming.PROFILE_TRAITS_UPDATES, _trait_rows(messages, traits, starts, now_us)))
    loads = [TableLoad(schema, table, without_withheld(table, rows, columns)) for table, rows in made]
    return [load for load in loads if load.rows.num_rows]


def tables_for(target: Target, tables: Iterable[str]) -> list[str]:
    """Those of the graph's tables that a warehouse may have rows in."""
    return [table for table in tables if target.takes_everybody or table == naming.ID_GRAPH_UPDATES]


def without_withheld(table: str, rows: Any, columns: ColumnNeeds) -> Any:
    """Rows of a table of the graph without what may rest on members of events that need purposes; arguments as above."""
    if columns and table == naming.EXTERNAL_ID_MAPPING_UPDATES:
        return rows.filter(pc.is_in(rows.column("external_id_type"), pa.array(sorted(OWN_IDENTIFIERS), pa.string())))
    if columns and table == naming.PROFILE_TRAITS_UPDATES:
        return rows.filter(pc.invert(pc.is_in(rows.column("name"), pa.array(sorted(withheld_traits(columns)), pa.string()))))
    return rows


def _canonical_rows(
    messages: Sequence[Numbered], lists: Sequence[Sequence[profile_pb2.CanonicalChange]], starts: Sequence[int], now_us: int
) -> Any:
    changes = list(chain.from_iterable(lists))
    return record_batch(
        ID_GRAPH_COLUMNS,
        [
            _each([message.changed.workspace_id for message in messages], lists),
            [change.profile_id for change in changes],
            [change.canonical_profile_id for change in changes],
            [change.triggering_event_type or None for change in changes],
            *_trigger(messages, lists, starts, [change.triggering_event_id for change in changes], now_us),
        ],
    )


def _mapping_rows(
    messages: Sequence[Numbered], lists: Sequence[Sequence[profile_pb2.MappingChange]], starts: Sequence[int], now_us: int
) -> Any:
    changes = list(chain.from_iterable(lists))
    values = [change.identifier.value for change in changes]
    return record_batch(
        MAPPING_COLUMNS,
        [
            _each([message.changed.workspace_id for message in messages], lists),
            [change.identifier.type for change in changes],
            values,
            [sha256(value.encode()).hexdigest() for value in values],
            [change.profile_id for change in changes],
            [_OPERATIONS[change.operation] for change in changes],
            *_trigger(messages, lists, starts, [change.triggering_event_id for change in changes], now_us),
        ],
    )


def _trait_rows(
    messages: Sequence[Numbered], lists: Sequence[Sequence[profile_pb2.TraitChange]], starts: Sequence[int], now_us: int
) -> Any:
    changes = list(chain.from_iterable(lists))
    return record_batch(
        TRAIT_COLUMNS,
        [
            _each([message.changed.workspace_id for message in messages], lists),
            [change.profile_id for change in changes],
            [change.name for change in changes],
            [change.value.decode() if change.value else None for change in changes],
            [micros(change.event_time) for change in changes],
            *_trigger(messages, lists, starts, [change.triggering_event_id for change in changes], now_us),
        ],
    )


def _trigger(
    messages: Sequence[Numbered], lists: Sequence[Sequence[Any]], starts: Sequence[int], events: Iterable[str], now_us: int
) -> Iterable[Sequence[Any]]:
    """The columns that all three tables end with."""
    seqs = [seq for start, changes in zip(starts, lists, strict=True) for seq in range(start, start + len(changes))]
    yield [event or None for event in events]
    yield _each([micros(message.changed.change_time) for message in messages], lists)
    yield seqs
    yield [now_us] * len(seqs)


def _each(values: Iterable[_T], lists: Sequence[Sequence[Any]]) -> list[_T]:
    """A value of each message, once per change."""
    return list(chain.from_iterable(repeat(value, len(changes)) for value, changes in zip(values, lists, strict=True)))
