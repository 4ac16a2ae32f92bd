"""The SQL of the catalog's database, as SQLite and Postgres both have it.

``iceberg_tables`` and ``iceberg_namespace_properties`` are those of Iceberg's JDBC catalog, which pyiceberg, Spark, Trino and others open
by themselves. Whatever begins with ``_cdi_`` is the loader's own.
"""

from __future__ import annotations

from typing import Final

CATALOG: Final = "cdi"
"""The name of the catalog, by which others open it."""

TABLES: Final = (
    """create table if not exists iceberg_tables (
        catalog_name varchar(255) not null, table_namespace varchar(255) not null, table_name varchar(255) not null,
        metadata_location varchar(1000), previous_metadata_location varchar(1000), iceberg_type varchar(5),
        primary key (catalog_name, table_namespace, table_name))""",
    """create table if not exists iceberg_namespace_properties (
        catalog_name varchar(255) not null, namespace varchar(255) not null, property_key varchar(255) not null,
        property_value varchar(1000) not null, primary key (catalog_name, namespace, property_key))""",
    "create table if not exists _cdi_state (id integer primary key, commits bigint not null, generation bigint not null)",
    """create table if not exists _cdi_positions (stream varchar(255) not null, partition integer not null, sequence bigint not null,
        source_sequence bigint not null, primary key (stream, partition))""",
    """create table if not exists _cdi_outcomes (sink varchar(255) not null, outcome integer not null, reason varchar(255) not null,
        events bigint not null, primary key (sink, outcome, reason))""",
    """create table if not exists _cdi_warehouses (workspace_id varchar(255) not null, name varchar(255) not null, purposes text not null,
        schema_name varchar(255) not null, version integer not null, frozen_sources text not null,
        primary key (workspace_id, name))""",
    """create table if not exists _cdi_loads (stream varchar(255) not null, started_us bigint not null,
        milliseconds double precision not null, events bigint not null, row_count bigint not null, byte_count bigint not null,
        tables integer not null)""",
    "create index if not exists _cdi_loads_started on _cdi_loads (started_us)",
    "create table if not exists _cdi_schema_changes (changed_us bigint not null, changes text not null)",
    """create table if not exists _cdi_tombstones (digest varchar(128) not null primary key, before_us bigint not null,
        erased_us bigint not null)""",
    "create index if not exists _cdi_tombstones_erased on _cdi_tombstones (erased_us)",
    "create table if not exists _cdi_unrewritten (erased_us bigint not null)",
    "create table if not exists _cdi_garbage (name varchar(1000) not null primary key, since_us bigint not null)",
    "insert into _cdi_state values (1, 0, 0) on conflict (id) do nothing",
)

LOCK: Final = "update _cdi_state set commits = commits + 1 where id = 1"
"""First in every transaction that writes: one process at a time. In SQLite it takes the file's lock before anything was read."""

GENERATION: Final = "select generation from _cdi_state"
NEXT_GENERATION: Final = "update _cdi_state set generation = generation + 1"
"""Whatever was written before and is not committed yet will not be: its files may go."""

POINTERS: Final = f"select table_namespace, table_name, metadata_location from iceberg_tables where catalog_name = '{CATALOG}'"
ADD_NAMESPACE: Final = f"""insert into iceberg_namespace_properties values ('{CATALOG}', :schema, 'exists', 'true')
    on conflict (catalog_name, namespace, property_key) do nothing"""
ADD_TABLE: Final = f"insert into iceberg_tables values ('{CATALOG}', :schema, :name, :location, null, 'TABLE')"
MOVE_TABLE: Final = f"""update iceberg_tables set metadata_location = :location, previous_metadata_location = :before
    where catalog_name = '{CATALOG}' and table_namespace = :schema and table_name = :name"""

POSITIONS: Final = "select stream, partition, sequence, source_sequence from _cdi_positions"
MOVE_POSITION: Final = """insert into _cdi_positions values (:stream, :partition, :sequence, :source_sequence)
    on conflict (stream, partition) do update set sequence = excluded.sequence, source_sequence = excluded.source_sequence"""
COUNTS: Final = "select sink, outcome, reason, events from _cdi_outcomes order by 1, 2, 3"
COUNT: Final = """insert into _cdi_outcomes values (:sink, :outcome, :reason, :events)
    on conflict (sink, outcome, reason) do update set events = _cdi_outcomes.events + excluded.events"""

DOCUMENTS: Final = "select workspace_id, name, purposes, schema_name, version, frozen_sources from _cdi_warehouses order by 1, 2"
PUT_DOCUMENT: Final = """insert into _cdi_warehouses values (:workspace_id, :name, :purposes, :schema, :version, :frozen)
    on conflict (workspace_id, name) do update set purposes = excluded.purposes, schema_name = excluded.schema_name,
    version = excluded.version, frozen_sources = excluded.frozen_sources"""

LOADS: Final = """select stream, started_us, milliseconds, events, row_count, byte_count, tables
    from _cdi_loads order by started_us desc limit :most"""
LOG: Final = "insert into _cdi_loads values (:stream, :started_us, :milliseconds, :events, :rows, :size, :tables)"
FORGET_LOADS: Final = "delete from _cdi_loads where started_us < :before_us"
CHANGES: Final = "select changed_us, changes from _cdi_schema_changes order by changed_us"
ADD_CHANGES: Final = "insert into _cdi_schema_changes values (:changed_us, :changes)"

NEWEST_ERASURE: Final = "select max(erased_us) from _cdi_tombstones"
OLDEST_UNREWRITTEN: Final = "select min(erased_us) from _cdi_unrewritten"
REMEMBER: Final = """insert into _cdi_tombstones values (:digest, :before_us, :erased_us)
    on conflict (digest) do update set
    before_us = case when excluded.before_us > _cdi_tombstones.before_us then excluded.before_us else _cdi_tombstones.before_us end,
    erased_us = case when excluded.erased_us > _cdi_tombstones.erased_us then excluded.erased_us else _cdi_tombstones.erased_us end"""
TOMBSTONES: Final = "select digest, before_us, erased_us from _cdi_tombstones where digest in :digests"
ADD_UNREWRITTEN: Final = "insert into _cdi_unrewritten values (:erased_us)"
UNREWRITTEN: Final = "select erased_us from _cdi_unrewritten"
REWRITTEN: Final = "delete from _cdi_unrewritten where erased_us in :done"

ADD_GARBAGE: Final = "insert into _cdi_garbage values (:name, :since_us) on conflict (name) do nothing"
GARBAGE: Final = "select name from _cdi_garbage where since_us < :before_us order by since_us limit :most"
FORGET_GARBAGE: Final = "delete from _cdi_garbage where name = :name"
