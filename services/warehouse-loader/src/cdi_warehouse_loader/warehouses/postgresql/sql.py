"""The SQL of a warehouse in Postgres: its own tables, and the tables of a schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import is_event_table

Columns = Mapping[str, ColumnType]

TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.BOOLEAN: "boolean",
    ColumnType.INTEGER: "integer",
    ColumnType.BIGINT: "bigint",
    ColumnType.DOUBLE: "double precision",
    ColumnType.TIMESTAMP: "timestamp with time zone",
    ColumnType.TEXT: "text",
}
"""How Postgres spells the types."""

_PURPOSES: Final = "consent_purposes"
_PEOPLE: Final = (naming.USERS, naming.ACCOUNTS)
_OFTEN_UPDATED: Final = "with (fillfactor = 50)"

BE_FIRST: Final = "select pg_advisory_xact_lock(6072150843)"
"""Two processes that make the loader's own tables at once would both find them missing."""

OWN_TABLES: Final = (
    "create table if not exists _cdi.catalog (version bigint not null)",
    "insert into _cdi.catalog select 1 where not exists (select from _cdi.catalog)",
    """create table if not exists _cdi.schemas (
        schema_name text primary key, number integer not null unique, views text not null)""",
    "create table if not exists _cdi.months (schema_name text, month text, primary key (schema_name, month))",
    f"""create table if not exists _cdi.progress (
        stream text, partition integer, sequence bigint not null, source_sequence bigint not null,
        primary key (stream, partition)) {_OFTEN_UPDATED}""",
    f"""create table if not exists _cdi.outcomes (
        sink text, outcome integer, reason text, events bigint not null, primary key (sink, outcome, reason)) {_OFTEN_UPDATED}""",
    """create table if not exists _cdi.warehouses (
        workspace_id text, name text, purposes text[] not null, schema_name text not null, version integer not null,
        frozen_sources text[] not null, primary key (workspace_id, name))""",
    """create table if not exists _cdi.loads (
        load_id bigint generated always as identity primary key, stream text not null, started_at timestamptz not null,
        milliseconds double precision not null, events bigint not null, row_count bigint not null, byte_count bigint not null,
        tables integer not null)""",
    """create table if not exists _cdi.schema_changes (
        change_id bigint generated always as identity primary key, changed_at timestamptz not null, schema_name text not null,
        table_name text not null, column_name text not null, change text not null, type text not null)""",
    """create table if not exists _cdi.tombstones (
        digest bytea not null, erased_before timestamptz not null, erased_at timestamptz not null)""",
    "create index if not exists tombstones_digest on _cdi.tombstones (digest)",
    "create index if not exists tombstones_erased_at on _cdi.tombstones (erased_at)",
    """create table if not exists _cdi.unrewritten (
        erased_at timestamptz not null, relation text not null, transaction_id xid8 not null)""",
    "create table if not exists _cdi.questions (backend integer primary key, login text not null, purposes text[] not null)",
    """create or replace function _cdi.asked_purposes() returns text[] language sql stable security definer set search_path = pg_catalog
        as 'select purposes from _cdi.questions where backend = pg_backend_pid() and login = session_user'""",
)
"""The loader's own tables, and a function for the policies of all others: what the question that is being answered is limited to.

``catalog`` has one row: its version rises with every change of any table and every erasure, and its lock keeps apart what may not happen at
once; see ``loading``."""

LOCK_SHARED: Final = "lock table _cdi.catalog in row share mode"
LOCK_ALONE: Final = "lock table _cdi.catalog in exclusive mode"
LOCK_ALONE_NOW: Final = f"{LOCK_ALONE} nowait"
VERSION: Final = "select version from _cdi.catalog"
ALTERED: Final = "update _cdi.catalog set version = version + 1"

_PLACES: Final = "unnest($1::text[], $2::bigint[])"
CLAIM: Final = f"""insert into _cdi.progress select stream, partition, 0, 0 from {_PLACES} as given(stream, partition)
    on conflict do nothing"""
HOLD: Final = f"""select stream, partition, sequence, source_sequence from _cdi.progress
    where (stream, partition) in (select * from {_PLACES}) order by stream, partition for update"""
WRITE_POSITIONS: Final = """update _cdi.progress p set sequence = n.sequence, source_sequence = n.source_sequence
    from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) as n(stream, partition, sequence, source_sequence)
    where p.stream = n.stream and p.partition = n.partition"""
WRITE_COUNTS: Final = """insert into _cdi.outcomes as o
    select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) as n(sink, outcome, reason, events) order by 1, 2, 3
    on conflict (sink, outcome, reason) do update set events = o.events + excluded.events"""
WRITE_LOG: Final = """insert into _cdi.loads (stream, started_at, milliseconds, events, row_count, byte_count, tables)
    values ($1, now(), $2, $3, $4, $5, $6)"""
FORGET_LOG: Final = "delete from _cdi.loads where started_at < now() - interval '14 days'"
"""Loads are remembered for two weeks."""

WRITE_CHANGES: Final = """insert into _cdi.schema_changes (changed_at, schema_name, table_name, column_name, change, type)
    select now(), n.* from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) as n"""
WRITE_DOCUMENT: Final = """insert into _cdi.warehouses values ($1, $2, $3::text[], $4, $5, $6::text[])
    on conflict (workspace_id, name) do update set purposes = excluded.purposes, schema_name = excluded.schema_name,
    version = excluded.version, frozen_sources = excluded.frozen_sources"""
READ_DOCUMENTS: Final = """select workspace_id, name, purposes, schema_name, version, frozen_sources from _cdi.warehouses
    order by workspace_id collate "C", name collate "C" """


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text."""
    return "'" + text.replace("'", "''") + "'"


def place(schema: str, table: str) -> str:
    """A table."""
    return f"{quoted(schema)}.{quoted(table)}"


def microseconds(instant: str) -> str:
    """An expression of a time as microseconds since 1970."""
    return f"(extract(epoch from {instant}) * 1000000)::bigint"


def create_schema(schema: str) -> str:
    """A schema, unless somebody has made it: a role that may not make schemas can use one that is there."""
    return f"""do $do$ begin
        if to_regnamespace({literal(quoted(schema))}) is null then create schema {quoted(schema)}; end if; end $do$"""


def create_table(schema: str, table: str, columns: Columns) -> Iterable[str]:
    """A new table with its indexes and its policy."""
    declared = [f"{quoted(name)} {TYPES[kind]}" for name, kind in columns.items()]
    if table in _PEOPLE:
        declared.append("primary key (workspace_id, id)")
    partitioned = " partition by range (received_at)" if table == naming.TRACKS else ""
    yield f"create table {place(schema, table)} ({', '.join(declared)}){partitioned}"
    if table == naming.REJECTED_EVENTS:
        yield f"create index on {place(schema, table)} (rejection_id)"
    # Rows come nearly in the order of time and stream: a small index of ranges of blocks is enough.
    if table not in _PEOPLE and (rising := [name for name in ("received_at", "event_seq") if name in columns]):
        yield f"create index on {place(schema, table)} using brin ({', '.join(rising)}) with (autosummarize = on)"
    yield from protect(schema, table, columns)


def protect(schema: str, table: str, columns: Columns) -> Iterable[str]:
    """Row security: a question with purposes sees rows of events that carry them all (``consenting``)."""
    # A sub-select is worked out once, not for each row.
    shown = "(select _cdi.asked_purposes()) is null"
    if is_event_table(table, columns) and _PURPOSES in columns:
        shown += f" or {_PURPOSES}::jsonb ?& (select _cdi.asked_purposes())"
    yield f"alter table {place(schema, table)} enable row level security"
    yield f"create policy cdi_purposes on {place(schema, table)} for select using ({shown})"


def add_columns(schema: str, table: str, columns: Columns) -> str:
    """New columns of a table."""
    return f"alter table {place(schema, table)} {', '.join(f'add column {quoted(name)} {TYPES[kind]}' for name, kind in columns.items())}"


def widen_columns(schema: str, table: str, columns: Iterable[str]) -> str:
    """Integer columns become double; Postgres writes the table anew."""
    kind = TYPES[ColumnType.DOUBLE]
    return f"alter table {place(schema, table)} {', '.join(f'alter column {quoted(name)} type {kind}' for name in columns)}"


def empty(tables: Iterable[tuple[str, str]]) -> str:
    """Tables without rows."""
    return f"truncate {', '.join(place(schema, table) for schema, table in tables)}"


STAGING: Final = "cdi_staging"


def stage(columns: Columns, names: Sequence[str]) -> str:
    """A table for the rows that ``merge`` takes, until the end of the transaction."""
    return f"create temporary table {STAGING} ({', '.join(f'{quoted(name)} {TYPES[columns[name]]}' for name in names)}) on commit drop"


UNSTAGE: Final = f"drop table pg_temp.{STAGING}"


def merge(schema: str, table: str, keys: Sequence[str], columns: Sequence[str]) -> str:
    """Staged rows by key: newer ones bring their values, older ones only fill what is empty.

    In the order of the keys, so that two processes that merge the same people wait for each other and never both.
    """
    listed = ", ".join(map(quoted, columns))
    key = ", ".join(map(quoted, keys))
    changes = ", ".join(
        f"""{name} = case when excluded."timestamp" >= old."timestamp"
            then coalesce(excluded.{name}, old.{name}) else coalesce(old.{name}, excluded.{name}) end"""
        for name in (quoted(column) for column in columns if column not in keys)
    )
    return f"""insert into {place(schema, table)} as old ({listed}) select {listed} from pg_temp.{STAGING} order by {key}
        on conflict ({key}) do update set {changes}"""
