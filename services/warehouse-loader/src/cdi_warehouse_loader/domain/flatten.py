"""JSON objects to columns, at the speed of ``zip``.

Objects with the same keys in the same order (one *shape*) are turned on their side together, so that Python runs per column and not per
value. What varies is only how the shapes follow each other: rows come out grouped by shape, and ``order`` says which row was which object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cdi_warehouse_loader.domain.columns import json_text, text

MAX_DEPTH: Final = 16
"""Objects nested deeper become JSON text."""

Json = Mapping[str, Any]


class Names(Protocol):
    """Column names by path."""

    def __getitem__(self, path: str, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Collision:
    """A value whose column another key of the same object has taken.

    Attributes:
        row: its row.
        column: the column that both keys map to.
        value: as text.
    """

    row: int
    column: str
    value: str


@dataclass(frozen=True, slots=True)
class Flat:
    """Objects as columns.

    Attributes:
        order: per row, the index of its object.
        columns: scalars, lists and ``None`` by column name; each as long as ``order``.
        collisions: values that found their column taken.
    """

    order: list[int]
    columns: dict[str, list[Any]]
    collisions: list[Collision]


def flatten(objects: Sequence[Json], names: Names) -> Flat:
    """Turns objects into columns; nested objects are joined with ``_``, lists stay lists.

    Args:
        objects: decoded JSON objects.
        names: column names of the kind of table.
    """
    flat = Flat([], {}, [])
    shapes = by_shape(objects)
    for shape, rows in shapes.items():
        values = [objects[row].values() for row in rows] if len(shapes) > 1 else [value.values() for value in objects]
        for opened in _opened(_Group(shape, rows, list(zip(*values, strict=True))), MAX_DEPTH):
            _append(flat, opened, names)
    total = len(flat.order)
    for column in flat.columns.values():
        if len(column) < total:
            column += [None] * (total - len(column))
    return flat


def by_shape(objects: Sequence[Json]) -> dict[tuple[str, ...], list[int]]:
    """Places of the objects by their keys, in the order in which the shapes first appear."""
    shapes: dict[tuple[str, ...], list[int]] = {}
    for row, shape in enumerate(map(tuple, objects)):
        same = shapes.get(shape)
        if same is None:
            shapes[shape] = [row]
        else:
            same.append(row)
    return shapes


@dataclass(frozen=True, slots=True)
class _Group:
    """Objects of one shape: the paths of their values, their places, and one column per path."""

    paths: Sequence[str]
    rows: list[int]
    columns: list[Sequence[Any]]


def _opened(group: _Group, depth: int) -> Iterator[_Group]:
    """The group with nested objects replaced by their members, split where the nested shapes differ."""
    nested = [place for place, column in enumerate(group.columns) if dict in set(map(type, column))]
    if not nested:
        yield group
        return
    if depth <= 1:
        columns = [[json_text(value) if type(value) is dict else value for value in column] for column in group.columns]
        yield _Group(group.paths, group.rows, [*columns])
        return
    inner = [[tuple(value) if type(value) is dict else None for value in group.columns[place]] for place in nested]
    places: dict[tuple[tuple[str, ...] | None, ...], list[int]] = {}
    for place, shapes in enumerate(zip(*inner, strict=True)):
        places.setdefault(shapes, []).append(place)
    for shapes, members in places.items():
        part = group if len(places) == 1 else _part(group, members)
        yield from _opened(_open(part, dict(zip(nested, shapes, strict=True))), depth - 1)


def _part(group: _Group, places: Sequence[int]) -> _Group:
    return _Group(group.paths, [group.rows[place] for place in places], [[column[place] for place in places] for column in group.columns])


def _open(group: _Group, shapes: Mapping[int, tuple[str, ...] | None]) -> _Group:
    """One level of nesting less; ``shapes`` are the keys of the columns that hold objects, ``None`` for a column that here does not."""
    paths: list[str] = []
    columns: list[Sequence[Any]] = []
    for place, (path, column) in enumerate(zip(group.paths, group.columns, strict=True)):
        shape = shapes.get(place)
        if shape is None:
            paths.append(path)
            columns.append(column)
        else:
            paths += [f"{path}.{key}" for key in shape]
            columns += zip(*[value.values() for value in column], strict=True)
    return _Group(paths, group.rows, columns)


def _append(flat: Flat, group: _Group, names: Names) -> None:
    start = len(flat.order)
    flat.order.extend(group.rows)
    for path, column in zip(group.paths, group.columns, strict=True):
        name = names[path]
        values = flat.columns.get(name)
        if values is None:
            values = flat.columns[name] = []
        if len(values) > start:
            flat.collisions.extend(Collision(start + i, name, text(value)) for i, value in enumerate(column) if value is not None)
            continue
        if len(values) < start:
            values += [None] * (start - len(values))
        values += column
