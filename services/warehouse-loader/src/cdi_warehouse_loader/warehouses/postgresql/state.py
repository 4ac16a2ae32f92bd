"""What a warehouse in Postgres says of itself: tables, positions, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import Change, LoadEntry, SchemaChange
from cdi_warehouse_loader.warehouses.postgresql import sql
from cdi_warehouse_loader.warehouses.postgresql.session import Session
from cdi_warehouse_loader.warehouses.postgresql.sql import TYPES, microseconds

ONE_MOMENT: Final = "transaction isolation level repeatable read, read only"
"""Everything that is read in such a transaction is of one moment."""

_NEWEST_ERASURE: Final = f"select coalesce({microseconds('max(erased_at)')}, 0) from _cdi.tombstones"
_CATALOG: Final = """select n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), c.relrowsecurity
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join _cdi.schemas s on s.schema_name = n.nspname
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p') and not c.relispartition order by 1, 2, a.attnum"""
_LOADS: Final = f"""select stream, {microseconds("started_at")}, milliseconds, events, row_count, byte_count, tables
    from _cdi.loads order by load_id desc limit $1::bigint"""
_CHANGES: Final = f"""select {microseconds("changed_at")}, schema_name, table_name, column_name, change, type
    from _cdi.schema_changes where schema_name = $1 order by change_id"""
_COLUMN_TYPES: Final = {spelled: kind for kind, spelled in TYPES.items()}


class Schema(NamedTuple):
    """A schema that the loader has made its own.

    Attributes:
        number: stands for its name in the names of partitions.
        views: digest of its views' text.
    """

    number: int
    views: str


@dataclass(frozen=True, slots=True)
class State:
    """A warehouse at one moment.

    Attributes:
        version: rises with every change of any table and every erasure.
        newest_erasure_us: see ``ports.Warehouse``.
        schemas: the loader's, by name. Others in the database are none of its business.
        catalog: their tables.
        months: schemas and months (``2026-01``) whose tracks have a partition.
        positions: see ``ports.Warehouse``.
        unprotected: schemas and tables without row security: of an older loader.
    """

    version: int
    newest_erasure_us: int
    schemas: Mapping[str, Schema]
    catalog: Catalog
    months: frozenset[tuple[str, str]]
    positions: Mapping[StreamPartition, Position]
    unprotected: frozenset[tuple[str, str]] = frozenset()


def read(session: Session) -> State:
    """The state, inside a transaction in which it is of one moment."""
    ((version,),), ((newest_us,),) = session.rows(sql.VERSION), session.rows(_NEWEST_ERASURE)
    schemas = {name: Schema(number, views) for name, number, views in session.rows("select schema_name, number, views from _cdi.schemas")}
    catalog: dict[str, dict[str, dict[str, ColumnType]]] = {name: {} for name in schemas}
    unprotected: set[tuple[str, str]] = set()
    for schema, table, column, kind, is_protected in session.rows(_CATALOG):
        catalog[schema].setdefault(table, {})[column] = _COLUMN_TYPES.get(kind, ColumnType.TEXT)
        if not is_protected:
            unprotected.add((schema, table))
    months = frozenset(session.rows("select schema_name, month from _cdi.months"))
    progress = session.rows("select stream, partition, sequence, source_sequence from _cdi.progress")
    positions = {StreamPartition(stream, partition): Position(*at) for stream, partition, *at in progress}
    return State(version, newest_us, schemas, catalog, months, positions, frozenset(unprotected))


def counts(session: Session) -> dict[CountKey, int]:
    """What became of the events, by key."""
    return {CountKey(*key): events for *key, events in session.rows("select sink, outcome, reason, events from _cdi.outcomes")}


def loads(session: Session, limit: int) -> list[LoadEntry]:
    """The newest entries of the log."""
    return [LoadEntry(*row) for row in session.rows(_LOADS, limit)]


def schema_changes(session: Session, schema: str) -> list[SchemaChange]:
    """The history of a schema."""
    rows = session.rows(_CHANGES, schema)
    return [SchemaChange(at_us, name, table, column, Change(change), kind) for at_us, name, table, column, change, kind in rows]
