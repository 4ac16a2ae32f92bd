"""What the views of the identity graph are put together from. How they are written is the dialect of each engine (its ``identity``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import ENRICHMENT_COLUMNS, EVENT_COLUMNS, OWN_COLUMNS, Columns

_KINDS: Final = {
    naming.TRACKS: "track",
    naming.IDENTIFIES: "identify",
    naming.GROUPS: "group",
    naming.PAGES: "page",
    naming.SCREENS: "screen",
    naming.ALIASES: "alias",
}
_OWN: Final[Columns] = {name: kind for own in OWN_COLUMNS.values() for name, kind in own.items()}

COLUMNS: Final = ("event_type", *EVENT_COLUMNS, *_OWN, *ENRICHMENT_COLUMNS)
"""Of ``events_by_person``, before the canonical profile."""

Place = Callable[[str, str], str]
"""How an engine writes a table or view of a schema."""


def places(schema: str, place: Place) -> dict[str, str]:
    """The tables and views of the graph, by name."""
    names = {naming.ID_GRAPH_UPDATES, naming.EXTERNAL_ID_MAPPING_UPDATES, naming.PROFILE_TRAITS_UPDATES, *naming.VIEWS}
    return {name: place(schema, name) for name in names}


def events(schema: str, place: Place, quoted: Callable[[str], str], null: Callable[[ColumnType], str]) -> str:
    """A query of the events of all kinds with ``COLUMNS``, which are NULL where a kind has no such column.

    Args:
        schema: the schema.
        place: a table, as it is read.
        quoted: an identifier.
        null: NULL of a type.
    """
    return " union all ".join(_rows(place(schema, table), table, quoted, null) for table in OWN_COLUMNS)


def _rows(place: str, table: str, quoted: Callable[[str], str], null: Callable[[ColumnType], str]) -> str:
    has = OWN_COLUMNS[table]
    common = ", ".join(map(quoted, [*EVENT_COLUMNS, *ENRICHMENT_COLUMNS]))
    own = ", ".join(quoted(name) if name in has else f"{null(kind)} as {quoted(name)}" for name, kind in _OWN.items())
    chosen = f"'{_KINDS[table]}' as {quoted('event_type')}, {common}, {own}"
    return f"select {chosen} from {place}"
