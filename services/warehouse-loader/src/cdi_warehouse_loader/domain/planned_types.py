"""Types that a tracking plan gives to columns before their first value: its JSON Schemas say what a property is.

Only what a schema says plainly counts: one type beside ``null``, nested objects by their ``properties``. A schema with references or
alternatives leaves the type to the first value, as no plan does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cdi_warehouse_loader.domain import layout, naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.flatten import Names, flatten
from cdi_warehouse_loader.domain.layout import Columns

PlannedTypes = Mapping[str, Columns]
"""Types of columns by table and column."""

NONE_PLANNED: Final[PlannedTypes] = {}


@dataclass(frozen=True, slots=True)
class ColumnRules:
    """What decides over new columns beside the values.

    Attributes:
        frozen: there are none, and no wider types; CDI's own columns excepted. What has no place goes to ``discards``.
        planned: their types; the others get that of their first value.
    """

    frozen: bool = False
    planned: PlannedTypes = field(default_factory=dict)


NO_RULES: Final = ColumnRules()

_TABLES: Final[Mapping[str, tuple[str, tuple[str, ...], Names]]] = {
    "identify": ("traits", (naming.IDENTIFIES, naming.USERS), layout.PROPERTY_NAMES),
    "group": ("traits", (naming.GROUPS, naming.ACCOUNTS), layout.GROUP_NAMES),
    "page": ("properties", (naming.PAGES,), layout.VIEW_NAMES),
    "screen": ("properties", (naming.SCREENS,), layout.VIEW_NAMES),
}
"""Type of event → the member of an event with its columns, their tables, how they are named."""

_TYPES: Final = {"boolean": ColumnType.BOOLEAN, "integer": ColumnType.BIGINT, "number": ColumnType.DOUBLE, "string": ColumnType.TEXT}


def planned_types(rules: Iterable[tuple[str, str, str]]) -> PlannedTypes:
    """The types that the rules of a workspace's plans give.

    Args:
        rules: type of event, its name (empty: any), JSON Schema. Where two give a column different types, neither counts.
    """
    found: dict[str, dict[str, set[ColumnType]]] = {}
    for kind, name, text in rules:
        if kind == "track" and not name:
            continue
        member, tables, names = _TABLES.get(kind, ("properties", (naming.table_name(name),), layout.PROPERTY_NAMES))
        for column, planned in _columns(text, member, names).items():
            for table in tables:
                found.setdefault(table, {}).setdefault(column, set()).add(planned)
    return {table: {column: next(iter(types)) for column, types in columns.items() if len(types) == 1} for table, columns in found.items()}


def _columns(text: str, member: str, names: Names) -> Mapping[str, ColumnType]:
    try:
        schema = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    sample = _sample(_member(_member(schema, "properties"), member))
    if not isinstance(sample, dict) or not sample:
        return {}
    # Flattened as an event with these properties would be, with the types standing for values.
    columns = flatten([sample], names).columns
    return {column: ColumnType(values[0]) for column, values in columns.items() if values[0] is not None}


def _sample(schema: Any) -> Any:
    """A type for each property of an object, ``None`` for what the schema does not say plainly."""
    kinds = _member(schema, "type")
    said = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    properties = _member(schema, "properties")
    if said in (["object"], [None]) and isinstance(properties, dict):
        return {name: _sample(part) for name, part in properties.items()}
    if len(said) != 1 or not isinstance(said[0], str):
        return None
    if said[0] == "string" and _member(schema, "format") == "date-time":
        return ColumnType.TIMESTAMP.value
    return _TYPES[said[0]].value if said[0] in _TYPES else None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
