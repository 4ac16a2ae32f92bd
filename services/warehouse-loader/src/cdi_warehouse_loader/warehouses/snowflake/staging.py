"""Rows of a load on their way: on the stage before its transaction begins, or in a table that is tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog, TableLoad
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.session import File, Session


@dataclass(frozen=True, slots=True)
class Staged:
    """A table of a load.

    Attributes:
        load: without its rows.
        file: with them; ``None``: there are none.
        columns: of the file.
    """

    load: TableLoad
    file: File | None
    columns: Sequence[str]


def stage(session: Session, loads: Iterable[TableLoad], catalog: Catalog) -> list[Staged]:
    """Puts the rows of a load on the session's stage; one table's rows are in memory at a time.

    Raises:
        ValueError: a table has not got a column, which Snowflake would leave out.
    """
    done: list[tuple[TableLoad, Sequence[str]]] = []

    def rows() -> Iterator[Any]:
        for load in loads:
            names = [] if load.rows is None else load.rows.schema.names
            columns = columns_of(load, catalog)
            if unknown := [name for name in names if name not in columns]:
                raise ValueError(f"{load.schema}.{load.table} has no column {', '.join(unknown)}")
            done.append((load.done(), names))
            if names and load.rows.num_rows:
                yield load.rows

    files = iter(session.staged(rows()))
    return [Staged(load, next(files) if load.row_count else None, names) for load, names in done]


def columns_of(load: TableLoad, catalog: Catalog) -> Mapping[str, ColumnType]:
    """The columns of a load's table once it is altered."""
    known = catalog.get(load.schema, {}).get(load.table, {})
    return {**known, **load.added, **dict.fromkeys(load.widened, ColumnType.DOUBLE)}


def attempt(session: Session, tables: Sequence[Staged], catalog: Catalog) -> None:
    """Has Snowflake read the rows as the tables would hold them, and keep none.

    Raises:
        Refused: it does not take the values.
    """
    for staged in tables:
        if staged.file is None:
            continue
        place = sql.place(sql.OWN, f"{sql.TRIED}{uuid4().hex}")
        session.run(sql.create_at(place, columns_of(staged.load, catalog)))
        try:
            with session.transaction(keep=False):
                session.copy_in(place, staged.file)
        finally:
            session.run(f"drop table if exists {place}")
