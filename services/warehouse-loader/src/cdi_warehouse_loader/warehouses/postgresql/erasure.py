"""Erasing people from a warehouse in Postgres, and reading what it holds of them.

One pass for any number of people: their ids are one temporary table, and each table is read once, with all its columns that can hold an id
turned into rows that are joined with it. What was deleted stays in temporary tables too, so that memory does not grow with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Found, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.postgresql.session import Session
from cdi_warehouse_loader.warehouses.postgresql.sql import literal, microseconds, place, quoted

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = pa.timestamp("us", "UTC")
_TABLES: Final = (
    """create temporary table cdi_people (
        number integer, workspace_id text, kind text, value text, before timestamptz, folded boolean default false) on commit drop""",
    "create temporary table cdi_rejected (place text, number integer) on commit drop",
    """create temporary table cdi_erased (
        schema_name text, table_name text, relation oid, message_id text, numbers integer[]) on commit drop""",
)
_FOLD: Final = (
    "insert into pg_temp.cdi_people select number, workspace_id, kind, lower(value), before, true from pg_temp.cdi_people",
    "analyze pg_temp.cdi_people",
)
_TOMBSTONES_OF: Final = f"""select digest, {microseconds("max(erased_before)")}, {microseconds("max(erased_at)")} from _cdi.tombstones
    where digest = any($1::bytea[]) group by digest"""
_COUNT: Final = """select schema_name || '.' || table_name, number, count(*)
    from pg_temp.cdi_erased cross join lateral unnest(numbers) as number group by 1, 2"""
# With a partition goes the one from which its rows may have moved, and where they lie then as deleted ones do.
_NOTE: Final = """insert into _cdi.unrewritten
    select $1::timestamptz, format('%I.%I', n.nspname, c.relname), pg_current_xact_id()
    from (
        select relation from pg_temp.cdi_erased
        union
        select p.partdefid from pg_temp.cdi_erased e
        join pg_catalog.pg_inherits i on i.inhrelid = e.relation join pg_catalog.pg_partitioned_table p on p.partrelid = i.inhparent
    ) e
    join pg_catalog.pg_class c on c.oid = e.relation join pg_catalog.pg_namespace n on n.oid = c.relnamespace"""
_REJECTED: Final = """select tableoid::bigint::text || ' ' || ctid::text, workspace_id, {received}, payload, payload_encoding
    from {table} where payload is not null and workspace_id in (select workspace_id from pg_temp.cdi_people)"""

Tables = Mapping[str, Mapping[str, ColumnType]]


def erase(session: Session, catalog: Catalog, erasures: Sequence[Erasure], now_us: int) -> Erased:
    """Deletes rows of people and leaves tombstones, inside the caller's transaction, in which nothing else is loaded.

    Args:
        session: in a transaction.
        catalog: all schemas.
        erasures: of whom.
        now_us: the time.
    """
    _name_people(session, erasures)
    for schema, tables in catalog.items():
        for table, hits in _tables(session, schema, tables, erasures):
            message = "t.id" if "event_seq" in tables[table] else "null"
            session.run(_delete(schema, table, hits, "t.tableoid = hits.relation and t.ctid = hits.place", message))
        if naming.DISCARDS in tables:
            session.run(_delete(schema, naming.DISCARDS, _messages(schema), "t.message_id = hits.message_id", "null"))
    counts: list[dict[str, int]] = [{} for _ in erasures]
    for store, number, rows in session.rows(_COUNT):
        counts[number][store] = rows
    session.run(_NOTE, _EPOCH + timedelta(microseconds=now_us))
    session.copy_in("_cdi", "tombstones", _tombstones(erasures, now_us))
    return Erased(counts, more=False)


def tombstones(session: Session, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
    """Those of the digests that have a tombstone."""
    return {digest: Tombstone(*times) for digest, *times in session.rows(_TOMBSTONES_OF, list(digests))}


def holdings(session: Session, catalog: Catalog, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
    """Hands over all rows of a person as JSON objects, in pieces, by ``<schema>.<table>``; inside a transaction that is taken back."""
    _name_people(session, [person])
    for schema, tables in catalog.items():
        for table, hits in _tables(session, schema, tables, [person]):
            statement = f"""with hits as materialized ({hits})
                select to_json(t)::text from hits join {place(schema, table)} t on t.tableoid = hits.relation and t.ctid = hits.place"""
            with session.reading(statement) as answer:
                for batch in answer:
                    take(f"{schema}.{table}", [row.encode() for row in batch.column(0).to_pylist()])


def _name_people(session: Session, erasures: Sequence[Erasure]) -> None:
    for statement in _TABLES:
        session.run(statement)
    rows = [(number, *one, erasure.before_us) for number, erasure in enumerate(erasures) for one in erasure.ids]
    if rows:
        types = (pa.int32(), pa.string(), pa.string(), pa.string(), _TIME)
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)]
        session.copy_in("pg_temp", "cdi_people", pa.RecordBatch.from_arrays(columns, ["number", "workspace_id", "kind", "value", "before"]))
    for statement in _FOLD:
        session.run(statement)


def _tables(session: Session, schema: str, tables: Tables, erasures: Sequence[Erasure]) -> Iterator[tuple[str, str]]:
    """The tables of a schema that can name people, each with a query of the rows that do: relation, place and people's numbers."""
    kinds = {one.kind for erasure in erasures for one in erasure.ids}
    for table, columns in tables.items():
        if table == naming.REJECTED_EVENTS:
            _find_rejected(session, place(schema, table), erasures)
            yield table, _HITS_OF_REJECTED
        elif found := found_by(table, columns, kinds):
            yield table, _hits(place(schema, table), found)


_HITS_OF_REJECTED: Final = """select split_part(place, ' ', 1)::bigint::oid as relation, split_part(place, ' ', 2)::tid as place,
    array_agg(distinct number) as numbers from pg_temp.cdi_rejected group by 1, 2"""


def _hits(table: str, found: Sequence[Found]) -> str:
    values = ", ".join(f"({_kind(one)}, {_value(one)}, {str(one.folded).lower()}, {str(one.dated).lower()})" for one in found)
    received = "t.received_at" if any(one.dated for one in found) else "null::timestamptz"
    return f"""select t.tableoid as relation, t.ctid as place, array_agg(distinct p.number) as numbers
        from {table} t cross join lateral (values {values}) as v(kind, value, folded, dated)
        join pg_temp.cdi_people p
            on p.value = v.value and p.kind = v.kind and p.folded = v.folded and p.workspace_id = t.workspace_id
            and (not v.dated or {received} is null or {received} <= p.before)
        group by 1, 2"""


def _kind(found: Found) -> str:
    return literal(found.kind) if found.kind else "t.external_id_type"


def _value(found: Found) -> str:
    column = f"t.{quoted(found.column)}"
    return f"lower({column})" if found.folded else column


def _messages(schema: str) -> str:
    """The events of a schema that were erased, with the people's numbers."""
    return f"""select message_id, array_agg(distinct number) as numbers
        from pg_temp.cdi_erased cross join lateral unnest(numbers) as number
        where schema_name = {literal(schema)} and message_id is not null group by 1"""


def _delete(schema: str, table: str, hits: str, condition: str, message: str) -> str:
    return f"""with hits as materialized ({hits}), gone as (
            delete from {place(schema, table)} t using hits where {condition}
            returning t.tableoid as relation, {message}::text as message_id, hits.numbers)
        insert into pg_temp.cdi_erased select {literal(schema)}, {literal(table)}, relation, message_id, numbers from gone"""


def _find_rejected(session: Session, table: str, erasures: Sequence[Erasure]) -> None:
    """Notes the rejected events that say an id of a person anywhere in their payload."""
    owners: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, erasure in enumerate(erasures):
        for one in erasure.ids:
            owners[one.workspace_id, one.value].append(number)
    found: list[tuple[str, int]] = []
    with session.reading(_REJECTED.format(table=table, received=microseconds("received_at"))) as answer:
        for batch in answer:
            for row, workspace_id, received_us, payload, encoding in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                for value in payload_values(payload, encoding):
                    found += [
                        (row, number)
                        for number in owners.get((workspace_id, value), ())
                        if (received_us or 0) <= erasures[number].before_us
                    ]
    session.run("truncate pg_temp.cdi_rejected")
    if found:
        places, numbers = zip(*found, strict=True)
        session.copy_in("pg_temp", "cdi_rejected", pa.record_batch({"place": pa.array(places), "number": pa.array(numbers, pa.int32())}))


def _tombstones(erasures: Sequence[Erasure], now_us: int) -> Any:
    ids = {
        (digest_of(one.workspace_id, one.kind, folded(one.kind, one.value)), erasure.before_us)
        for erasure in erasures
        for one in erasure.ids
    }
    digests, before = zip(*sorted(ids), strict=True) if ids else ((), ())
    return pa.record_batch(
        {
            "digest": pa.array(digests, pa.binary()),
            "erased_before": pa.array(before, _TIME),
            "erased_at": pa.array([now_us] * len(ids), _TIME),
        }
    )
