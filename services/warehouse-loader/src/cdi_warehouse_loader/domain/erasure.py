"""Erasing people: whose rows, in which columns of which tables they are found, and what stays of the ids.

Source of the rule which columns name a person: the layout of this service (README, "Tables").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import is_event_table

PROFILE_ID: Final = "profile_id"
"""Kind of a profile's id, beside the types of identifiers."""

_EVENT_IDS: Final = ("user_id", "anonymous_id", PROFILE_ID)
_TRAIT_PREFIXES: Final = ("", "context_traits_", "context_profile_")
_GRAPH: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    naming.ID_GRAPH_UPDATES: ((PROFILE_ID, PROFILE_ID), ("canonical_profile_id", PROFILE_ID)),
    naming.EXTERNAL_ID_MAPPING_UPDATES: ((PROFILE_ID, PROFILE_ID),),
    naming.PROFILE_TRAITS_UPDATES: ((PROFILE_ID, PROFILE_ID),),
}


class PersonId(NamedTuple):
    """One id of a person.

    Attributes:
        workspace_id: the workspace.
        kind: type of the identifier, or ``PROFILE_ID``.
        value: the id.
    """

    workspace_id: str
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to be erased of one person.

    Attributes:
        ids: all ids.
        before_us: events that were received until then, microseconds since 1970; rows without that time altogether.
    """

    ids: Sequence[PersonId]
    before_us: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What one pass over the tables deleted.

    Attributes:
        counts: per erasure the rows by ``<schema>.<table>``; a row of two people counts for both.
        more: something may be left, which the next pass finds.
    """

    counts: Sequence[Mapping[str, int]]
    more: bool


class Tombstone(NamedTuple):
    """What stays of an erased id, by its digest.

    Attributes:
        before_us: events that were received until then do not come back.
        erased_us: when the rows were erased; what the graph said of the id until then does not come back.
    """

    before_us: int
    erased_us: int


@dataclass(frozen=True, slots=True)
class Found:
    """How a person's rows are found in a table.

    Attributes:
        column: that holds an id.
        kind: of the ids that it holds; ``""``: the table says so itself, in ``external_id_type``.
        dated: only rows that were received until the time of the erasure.
        folded: letters' case does not count.
    """

    column: str
    kind: str
    dated: bool = False
    folded: bool = False


def folded(kind: str, value: str) -> str:
    """An id as it is compared: letters' case counts in ids that the client makes up, and not in addresses and the like."""
    return value if kind in _EVENT_IDS else value.lower()


def found_by(table: str, columns: Mapping[str, ColumnType], kinds: Iterable[str]) -> Sequence[Found]:
    """The columns of a table by which a person's rows are found; none for a table that names nobody.

    Args:
        table: its name.
        columns: its columns.
        kinds: of the ids that are looked for; e-mail addresses and the like are looked for in columns of their name.
    """
    if table in _GRAPH:
        found = [Found(column, kind) for column, kind in _GRAPH[table]]
        return [*found, Found("external_id_value", "")] if table == naming.EXTERNAL_ID_MAPPING_UPDATES else found
    if table == naming.USERS:
        return [Found("id", "user_id"), Found(PROFILE_ID, PROFILE_ID), *_traits(columns, kinds, dated=False)]
    if not is_event_table(table, columns):
        return ()
    found = [Found(column, column, dated=True) for column in _EVENT_IDS]
    if table == naming.ALIASES:
        found += [Found("previous_id", kind, dated=True) for kind in ("user_id", "anonymous_id")]
    return [*found, *_traits(columns, kinds, dated=True)]


def _traits(columns: Mapping[str, ColumnType], kinds: Iterable[str], *, dated: bool) -> Iterable[Found]:
    """Columns of traits that are identifiers: ``email``, ``context_traits_email``, ``context_profile_email``, and so for other types."""
    for kind in sorted(set(kinds) - set(_EVENT_IDS)):
        for prefix in _TRAIT_PREFIXES:
            if columns.get(prefix + kind) is ColumnType.TEXT:
                yield Found(prefix + kind, kind, dated, folded=True)
