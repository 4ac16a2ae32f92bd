"""Erasing people from BigQuery, and reading what it holds of them.

BigQuery keeps the text of every job, and its parameters, for half a year. So no id of a person stands in one: the ids are a staged table,
the rows that are found another one, and both are dropped after. Each table is read once, with all its columns that can hold an id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Found, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.layout import key_of
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.bigquery.connection import STAGING, Connection
from cdi_warehouse_loader.warehouses.bigquery.loading import in_turn
from cdi_warehouse_loader.warehouses.bigquery.sql import (
    OWN,
    chunks,
    column_of,
    instant,
    place,
    quoted,
    take_turn,
    text,
    transaction,
)
from cdi_warehouse_loader.warehouses.bigquery.staging import forget, staged

_DIGESTS: Final = 5_000
_PAGE: Final = 500
_TABLES: Final = 20
"""Tables that one statement looks at."""

_TIME: Final = pa.timestamp("us", "UTC")
_FOUND: Final = ("place", "number", "key", "message_id")

Tables = Mapping[str, Mapping[str, ColumnType]]


def remember(connection: Connection, erasures: Sequence[Erasure], now_us: int) -> None:
    """Leaves tombstones, and lets every load that was planned before begin anew."""
    ids = sorted(
        {
            (digest_of(one.workspace_id, one.kind, folded(one.kind, one.value)), erasure.before_us)
            for erasure in erasures
            for one in erasure.ids
        }
    )
    rows = {"digest": pa.array([one.hex() for one, _ in ids], pa.string()), "erased_before": pa.array([at for _, at in ids], _TIME)}
    with staged(connection, [pa.record_batch(rows)]) as (stones,):
        statements = [
            take_turn(alters=True),
            f"INSERT INTO `{OWN}`.`unrewritten` (`erased_at`, `noted_at`) VALUES ({instant(now_us)}, CURRENT_TIMESTAMP())",
        ]
        if stones:
            statements.append(
                f"INSERT INTO `{OWN}`.`tombstones` (`digest`, `erased_before`, `erased_at`) "
                f"SELECT s.`digest`, s.`erased_before`, {instant(now_us)} FROM ({stones.source}) AS s"
            )
        in_turn(connection, transaction(statements))


def erase(connection: Connection, catalog: Catalog, erasures: Sequence[Erasure]) -> Erased:
    """Deletes rows of people, in one transaction unless they are in very many tables; nothing of theirs can be loaded any more."""
    counts: list[dict[str, int]] = [{} for _ in erasures]
    with _search(connection, catalog, erasures) as found:
        hits = connection.rows(f"SELECT `place`, `number`, COUNT(DISTINCT `key`) AS hits FROM {found} GROUP BY `place`, `number`")
        for where, number, rows in hits:
            counts[number][where] = rows
        places = sorted({(schema, table) for schema, _, table in (where.partition(".") for where, _, _ in hits)})
        for some in chunks(places):
            in_turn(connection, transaction([take_turn(), *(_delete(found, *where) for where in some)]))
    return Erased(counts, more=False)


def tombstones(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
    """Those of the digests that have a tombstone."""
    found: dict[bytes, Tombstone] = {}
    for start in range(0, len(digests), _DIGESTS):
        rows = connection.rows(
            f"""SELECT `digest`, UNIX_MICROS(MAX(`erased_before`)) AS erased_before, UNIX_MICROS(MAX(`erased_at`)) AS erased_at
            FROM `{OWN}`.`tombstones` WHERE `digest` IN UNNEST(@given) GROUP BY `digest`""",
            given=[one.hex() for one in digests[start : start + _DIGESTS]],
        )
        found |= {bytes.fromhex(digest): Tombstone(before, erased) for digest, before, erased in rows}
    return found


def holdings(connection: Connection, catalog: Catalog, person: Erasure, take: Callable[[str, Sequence[bytes]], None]) -> None:
    """Hands over all rows of a person as JSON objects, in pieces, by ``<schema>.<table>``."""
    with _search(connection, catalog, [person]) as found:
        for (where,) in connection.rows(f"SELECT DISTINCT `place` FROM {found} ORDER BY `place`"):
            schema, table = where.split(".", 1)
            statement = f"SELECT TO_JSON_STRING(held) AS held FROM {place(schema, table)} AS held WHERE {_is_found(found, schema, table)}"
            page: list[bytes] = []
            with connection.reading(statement) as answer:
                for row in answer:
                    page.append(row[0].encode())
                    if len(page) == _PAGE:
                        take(where, page)
                        page = []
            if page:
                take(where, page)


@contextlib.contextmanager
def _search(connection: Connection, catalog: Catalog, erasures: Sequence[Erasure]) -> Iterator[str]:
    """A table of what was found of people, for the time of the block: place, number of the erasure, key of the row, message id."""
    kinds = {one.kind for erasure in erasures for one in erasure.ids}
    name = f"found_{uuid4().hex}"
    found = place(STAGING, name)
    try:
        with staged(connection, [_people(erasures), _rejected(connection, catalog, erasures)]) as (people, rejected):
            connection.run(f"CREATE TABLE {found} (`place` STRING, `number` INT64, `key` STRING, `message_id` STRING)")
            into = f"INSERT INTO {found} ({', '.join(map(quoted, _FOUND))})"
            if rejected:
                connection.run(f"{into} SELECT `place`, `number`, TO_JSON_STRING([`first`, `second`]), NULL FROM ({rejected.source})")
            searches = list(_searches(catalog, kinds, people.source)) if people else []
            for start in range(0, len(searches), _TABLES):
                connection.run(f"{into} {' UNION ALL '.join(searches[start : start + _TABLES])}")
        for schema, tables in catalog.items():
            if naming.DISCARDS in tables:
                connection.run(f"{into} {_discards(schema, found)}")
        yield found
    finally:
        forget(connection, name)


def _people(erasures: Sequence[Erasure]) -> Any:
    rows = [(number, *one, erasure.before_us, False) for number, erasure in enumerate(erasures) for one in erasure.ids]
    rows += [(number, workspace, kind, value.lower(), before, True) for number, workspace, kind, value, before, _ in rows]
    numbers, workspaces, kinds, values, before, is_folded = zip(*rows, strict=True) if rows else ((),) * 6
    columns = {
        "number": pa.array(numbers, pa.int64()),
        "workspace": pa.array(workspaces, pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "value": pa.array(values, pa.string()),
        "before": pa.array(before, _TIME),
        "folded": pa.array(is_folded, pa.bool_()),
    }
    return pa.record_batch(columns)


def _searches(catalog: Catalog, kinds: set[str], people: str) -> Iterator[str]:
    """Queries of the rows of people, one for each table that can name anybody."""
    for schema, tables in catalog.items():
        for table, columns in tables.items():
            if found := found_by(table, columns, kinds):
                yield _find(schema, table, columns, found, people)


def _find(schema: str, table: str, columns: Mapping[str, ColumnType], found: Sequence[Found], people: str) -> str:
    message = "t.`id`" if "event_seq" in columns else "NULL"
    dated = "t.`received_at`" if any(one.dated for one in found) else "CAST(NULL AS TIMESTAMP)"
    workspace = f"t.{quoted('workspace_id')} AS workspace, {dated} AS received, {_key(table)} AS key, {message} AS message"
    rows = " UNION ALL ".join(
        f"SELECT {workspace}, {_kind(one)} AS kind, {_value(one)} AS value, {one.folded} AS folded, {one.dated} AS dated "
        f"FROM {place(schema, table)} AS t"
        for one in found
    )
    return (
        f"SELECT DISTINCT {text(f'{schema}.{table}')} AS `place`, p.`number`, v.key, CAST(v.message AS STRING) AS message_id "
        f"FROM ({rows}) AS v JOIN ({people}) AS p "
        f"ON p.`value` = v.value AND p.`kind` = v.kind AND p.`folded` = v.folded AND p.`workspace` = v.workspace "
        f"WHERE NOT v.dated OR v.received IS NULL OR v.received <= p.`before`"
    )


def _kind(found: Found) -> str:
    return text(found.kind) if found.kind else "t.`external_id_type`"


def _value(found: Found) -> str:
    column = f"t.{column_of(found.column)}"
    return f"LOWER({column})" if found.folded else column


def _key(table: str) -> str:
    """The identity of a row ``t`` as one text."""
    parts = ", ".join(f"CAST(t.{quoted(name)} AS STRING)" for name in key_of(table))
    return f"TO_JSON_STRING([{parts}])"


def _discards(schema: str, found: str) -> str:
    """What did not fit a column, of the events that were found."""
    return (
        f"SELECT DISTINCT {text(f'{schema}.{naming.DISCARDS}')} AS `place`, f.`number`, {_key(naming.DISCARDS)} AS `key`, "
        f"CAST(NULL AS STRING) AS message_id FROM {place(schema, naming.DISCARDS)} AS t JOIN {found} AS f "
        f"ON f.`message_id` = t.`message_id` WHERE STARTS_WITH(f.`place`, {text(f'{schema}.')})"
    )


def _is_found(found: str, schema: str, table: str) -> str:
    key = _key(table).replace("t.`", "held.`")
    return f"{key} IN (SELECT `key` FROM {found} WHERE `place` = {text(f'{schema}.{table}')})"


def _delete(found: str, schema: str, table: str) -> str:
    return f"DELETE FROM {place(schema, table)} AS held WHERE {_is_found(found, schema, table)}"


def _rejected(connection: Connection, catalog: Catalog, erasures: Sequence[Erasure]) -> Any:
    """Rejected events that say an id of a person anywhere in their payload."""
    owners: dict[tuple[str, str], list[int]] = {}
    for number, erasure in enumerate(erasures):
        for one in erasure.ids:
            owners.setdefault((one.workspace_id, one.value), []).append(number)
    hits: set[tuple[str, int, str, str]] = set()
    for schema in (schema for schema, tables in catalog.items() if naming.REJECTED_EVENTS in tables):
        statement = f"""SELECT `workspace_id`, `rejection_id`, UNIX_MICROS(`received_at`) AS received, `payload`, `payload_encoding`
            FROM {place(schema, naming.REJECTED_EVENTS)} WHERE `payload` IS NOT NULL AND `workspace_id` IN UNNEST(@given)"""
        with connection.reading(statement, given=sorted({workspace for workspace, _ in owners})) as answer:
            for workspace_id, rejection_id, received_us, payload, encoding in (row.values() for row in answer):
                for value in payload_values(payload, encoding):
                    for number in owners.get((workspace_id, value), ()):
                        if (received_us or 0) <= erasures[number].before_us:
                            hits.add((f"{schema}.{naming.REJECTED_EVENTS}", number, workspace_id, rejection_id))
    places, numbers, first, second = zip(*hits, strict=True) if hits else ((),) * 4
    columns = {
        "place": pa.array(places, pa.string()),
        "number": pa.array(numbers, pa.int64()),
        "first": pa.array(first, pa.string()),
        "second": pa.array(second, pa.string()),
    }
    return pa.record_batch(columns)
