"""What a schema of the warehouse has from the start, and what an older one lacks of it."""

from __future__ import annotations

from collections.abc import Iterator

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.layout import STARTING_TABLES, TRACK_TABLE_COLUMNS, is_event_table
from cdi_warehouse_loader.warehouses.postgresql import identity, months, sql
from cdi_warehouse_loader.warehouses.postgresql.state import State


def missing(schema: str, state: State) -> Iterator[str]:
    """Statements that make what the schema has not got; none when it is complete."""
    tables = state.catalog.get(schema, {})
    texts = identity.views(schema)
    digest = identity.digest(texts)
    known = state.schemas.get(schema)
    number = known.number if known else 1 + max((one.number for one in state.schemas.values()), default=0)
    if known is None:
        yield sql.create_schema(schema)
        yield f"insert into _cdi.schemas values ({sql.literal(schema)}, {number}, '')"
    for table, columns in STARTING_TABLES.items():
        if table not in tables:
            yield from sql.create_table(schema, table, columns)
            if table == naming.TRACKS:
                yield months.default_partition(schema, number)
    for table, has in tables.items():
        layout = STARTING_TABLES.get(table, TRACK_TABLE_COLUMNS if is_event_table(table, has) else {})
        if lacks := {name: kind for name, kind in layout.items() if name not in has}:
            yield sql.add_columns(schema, table, lacks)
        if (schema, table) in state.unprotected:
            yield from sql.protect(schema, table, has)
    if known is None or known.views != digest:
        # Not replaced in place: Postgres lets nobody put a column between those of a view.
        yield from (f"drop view if exists {sql.place(schema, name)}" for name in reversed(list(texts)))
        # As the role that asks: its rights, and the policies of the tables.
        yield from (f"create view {sql.place(schema, name)} with (security_invoker) as {text}" for name, text in texts.items())
        yield f"update _cdi.schemas set views = {sql.literal(digest)} where schema_name = {sql.literal(schema)}"
