"""Erasing people from a warehouse in Snowflake, and reading what it holds of them.

One pass for any number of people: their ids are rows of ``_cdi.people``, and what is found of them are rows of ``_cdi.found``, by the
columns that tell rows apart, both inside of one transaction only. No id stands in a statement, which Snowflake would keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Found, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.snowflake import sql
from cdi_warehouse_loader.warehouses.snowflake.session import File, Session, plain
from cdi_warehouse_loader.warehouses.snowflake.sql import FOUND, IDS, TYPES, literal, place, quoted

_TIME: Final = pa.timestamp("us", "UTC")
_PAGE: Final = 500
_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    naming.USERS: ("workspace_id", "id"),
    naming.REJECTED_EVENTS: ("workspace_id", "rejection_id"),
    naming.ID_GRAPH_UPDATES: ("workspace_id", "seq"),
    naming.EXTERNAL_ID_MAPPING_UPDATES: ("workspace_id", "seq"),
    naming.PROFILE_TRAITS_UPDATES: ("workspace_id", "seq"),
}
_EVENT_KEY: Final = ("partition", "event_seq")
_COUNT: Final = f"select place, number, count(*) from {FOUND} group by place, number"
_encode = msgspec.json.Encoder().encode

Tables = Mapping[str, Mapping[str, ColumnType]]


def people(erasures: Sequence[Erasure]) -> Any:
    """The rows of ``_cdi.people``."""
    rows = [(number, *one, one.value.lower(), erasure.before_us) for number, erasure in enumerate(erasures) for one in erasure.ids]
    numbers, workspaces, kinds, values, lower, before = zip(*rows, strict=True) if rows else ((),) * 6
    return pa.record_batch(
        {
            "number": pa.array(numbers, pa.int32()),
            "workspace_id": pa.array(workspaces, pa.string()),
            "kind": pa.array(kinds, pa.string()),
            "value": pa.array(values, pa.string()),
            "folded": pa.array(lower, pa.string()),
            "before": pa.array(before, _TIME),
        }
    )


def tombstone_rows(erasures: Sequence[Erasure], now_us: int) -> Any:
    """The rows of ``_cdi.tombstones``."""
    ids = {
        (digest_of(one.workspace_id, one.kind, folded(one.kind, one.value)).hex(), erasure.before_us)
        for erasure in erasures
        for one in erasure.ids
    }
    digests, before = zip(*sorted(ids), strict=True) if ids else ((), ())
    return pa.record_batch(
        {
            "digest": pa.array(digests, pa.string()),
            "erased_before_us": pa.array(before, pa.int64()),
            "erased_at_us": pa.array([now_us] * len(ids), pa.int64()),
        }
    )


def erase(session: Session, catalog: Catalog, erasures: Sequence[Erasure], now_us: int, files: tuple[File, File]) -> Erased:
    """Deletes rows of people and leaves tombstones, inside the caller's transaction, which holds the catalog's lock.

    Args:
        session: in a transaction.
        catalog: all schemas.
        erasures: of whom.
        now_us: the time.
        files: of ``people`` and of ``tombstone_rows``.
    """
    counts: list[dict[str, int]] = [{} for _ in erasures]
    session.copy_in(IDS, files[0])
    for schema, tables in catalog.items():
        for table in _find(session, schema, tables, erasures):
            session.run(f"delete from {place(schema, table)} using {_hits(schema, table)} where {_same(table, quoted(table))}")
        if naming.DISCARDS in tables:
            messages = f"""(select distinct number, message_id from {FOUND}
                where message_id is not null and split_part(place, '.', 1) = {literal(schema)}) f"""
            discards = place(schema, naming.DISCARDS)
            for number, gone in session.rows(
                f"select f.number, count(*) from {discards} d join {messages} on d.message_id = f.message_id group by f.number"
            ):
                counts[number][f"{schema}.{naming.DISCARDS}"] = gone
            session.run(f"delete from {discards} using {messages} where {quoted(naming.DISCARDS)}.message_id = f.message_id")
    for store, number, rows in session.rows(_COUNT):
        counts[number][store] = rows
    session.copy_in(sql.TOMBSTONES, files[1])
    session.run(sql.values(sql.UNREWRITTEN, [(now_us,)]))
    for table in (IDS, FOUND):
        session.run(f"delete from {table}")
    return Erased(counts, more=False)


def tombstones(session: Session, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
    """Those of the digests that have a tombstone."""
    given = _encode([digest.hex() for digest in digests]).decode()
    rows = session.rows(
        f"""select digest, max(erased_before_us), max(erased_at_us) from {sql.TOMBSTONES} where {sql.AMONG.format(column="digest")}
        group by digest""",
        given,
    )
    return {bytes.fromhex(digest): Tombstone(before, erased) for digest, before, erased in rows}


def holdings(session: Session, catalog: Catalog, person: Erasure, file: File, take: Callable[[str, Sequence[bytes]], None]) -> None:
    """Hands over all rows of a person as JSON objects, in pieces, by ``<schema>.<table>``; in a transaction that is taken back."""
    session.copy_in(IDS, file)
    for schema, tables in catalog.items():
        for table in _find(session, schema, tables, [person]):
            with session.reading(f"select t.* from {place(schema, table)} t join {_hits(schema, table)} on {_same(table, 't')}") as answer:
                names = [sql.lower(field.name) for field in answer.schema]
                for batch in answer:
                    for start in range(0, batch.num_rows, _PAGE):
                        rows = zip(*(column.to_pylist() for column in batch.slice(start, _PAGE).columns), strict=True)
                        page = [_encode(dict(zip(names, map(plain, row), strict=True))) for row in rows]
                        take(f"{schema}.{table}", page)


def _find(session: Session, schema: str, tables: Tables, erasures: Sequence[Erasure]) -> Iterator[str]:
    """Notes the rows of people in the tables of a schema; the tables that can name people."""
    kinds = {one.kind for erasure in erasures for one in erasure.ids}
    for table, columns in tables.items():
        if table == naming.REJECTED_EVENTS:
            if found := list(_rejected(session, schema, erasures)):
                numbers, first, second = zip(*found, strict=True)
                stores = pa.array([f"{schema}.{table}"] * len(found))
                batch = pa.record_batch(
                    {"place": stores, "number": pa.array(numbers, pa.int32()), "first": pa.array(first), "second": pa.array(second)}
                )
                session.copy_in(FOUND, session.staged([batch])[0])
                yield table
        elif ways := found_by(table, columns, kinds):
            message = "t.id" if "event_seq" in columns else "null"
            one, other = (f"t.{quoted(key)}::varchar" for key in _key(table))
            hits = " union ".join(
                f"""select p.number, {one} as first, {other} as second, {message}::varchar as message_id
                from {place(schema, table)} t join {IDS} p on {_is(way)} and p.workspace_id = t.workspace_id"""
                for way in ways
            )
            session.run(
                f"insert into {FOUND} select {literal(f'{schema}.{table}')}, h.number, h.first, h.second, h.message_id from ({hits}) h"
            )
            yield table


def _is(found: Found) -> str:
    column = f"t.{quoted(found.column)}"
    value = f"lower({column}) = p.folded" if found.folded else f"{column} = p.value"
    kind = literal(found.kind) if found.kind else "t.external_id_type"
    dated = " and (t.received_at is null or t.received_at <= p.before)" if found.dated else ""
    return f"{value} and p.kind = {kind}{dated}"


def _key(table: str) -> tuple[str, str]:
    return _KEYS.get(table, _EVENT_KEY)


def _hits(schema: str, table: str) -> str:
    """The keys of the rows that were found in a table."""
    numbers = {"partition": ColumnType.INTEGER, "event_seq": ColumnType.BIGINT, "seq": ColumnType.BIGINT}
    first, second = (TYPES[numbers.get(key, ColumnType.TEXT)] for key in _key(table))
    return f"""(select distinct first::{first} as first, second::{second} as second from {FOUND}
        where place = {literal(f"{schema}.{table}")}) f"""


def _same(table: str, alias: str) -> str:
    first, second = (f"{alias}.{quoted(key)}" for key in _key(table))
    return f"{first} = f.first and {second} = f.second"


def _rejected(session: Session, schema: str, erasures: Sequence[Erasure]) -> Iterator[tuple[int, str, str]]:
    """Numbers and keys of rejected events that say an id of a person anywhere in their payload."""
    owners: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, erasure in enumerate(erasures):
        for one in erasure.ids:
            owners[one.workspace_id, one.value].append(number)
    statement = f"""select workspace_id, rejection_id, date_part(epoch_microsecond, received_at) as received_us, payload, payload_encoding
        from {place(schema, naming.REJECTED_EVENTS)} where payload is not null and workspace_id in (select workspace_id from {IDS})"""
    with session.reading(statement) as answer:
        for batch in answer:
            for workspace_id, rejection_id, received_us, payload, encoding in zip(
                *(column.to_pylist() for column in batch.columns), strict=True
            ):
                hits = {number for value in payload_values(payload, encoding) for number in owners.get((workspace_id, value), ())}
                yield from ((number, workspace_id, rejection_id) for number in hits if (received_us or 0) <= erasures[number].before_us)
