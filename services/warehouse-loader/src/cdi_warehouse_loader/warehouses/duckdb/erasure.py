"""Erasing people from the embedded warehouse, and reading what it holds of them.

One pass for any number of people: their ids are one small table, each column that can hold an id is joined with it once, and each table
is deleted from once. Scanning one column costs a tenth of a second per million rows; asking for several columns at once would keep DuckDB
from pushing the ids into the scan.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Found, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.duckdb.sql import place, quoted

TOMBSTONES: Final = """create table if not exists _cdi.tombstones (
    digest blob not null, erased_before timestamptz not null, erased_at timestamptz not null)"""
UNREWRITTEN: Final = "create table if not exists _cdi.unrewritten (erased_at timestamptz not null)"
"""Erasures whose rows lie in the file still, where nothing reads them: DuckDB only marks them as deleted."""

NEWEST: Final = "select max(erased_at) from _cdi.tombstones"
OLDEST_UNREWRITTEN: Final = "select min(erased_at) from _cdi.unrewritten"
_REMEMBER: Final = "insert into _cdi.tombstones select unnest(?::blob[]), unnest(?::timestamptz[]), ?"
_TOMBSTONES_OF: Final = """select digest, max(erased_before), max(erased_at) from _cdi.tombstones
    where digest in (select unnest(?::blob[])) group by digest"""
_PEOPLE: Final = "cdi_people"
_PAGE: Final = 500
_VECTOR: Final = 2_048
MAX_VECTORS: Final = 1_000
"""DuckDB keeps 16 KiB of memory for every vector of 2,048 rows from which something is deleted, until the next checkpoint."""

MAX_ROWS: Final = 50_000
"""Rows that one column gives to one pass: what Python holds of them takes a hundred times their bytes."""

_Rows = dict[int, set[int]]
"""Row id → the erasures, by number, that it belongs to."""

Connection = duckdb.DuckDBPyConnection


def erase(connection: Connection, catalog: Catalog, erasures: Sequence[Erasure], now_us: int) -> Erased:
    """Deletes rows of people, as many as memory allows, and leaves tombstones, inside the caller's transaction.

    Args:
        connection: the loader's, in a transaction.
        catalog: all schemas.
        erasures: of whom.
        now_us: the time.
    """
    counts: list[dict[str, int]] = [{} for _ in erasures]
    more, deleting = False, False
    for schema, tables in catalog.items():
        messages: dict[str, set[int]] = {}
        for table, found, cut in _tables(connection, schema, tables, erasures, MAX_ROWS):
            rows = _within(found, MAX_VECTORS)
            more = more or cut or len(rows) < len(found)
            if not rows:
                continue
            deleting = True
            column = "id" if "event_seq" in tables[table] else "null"
            deleted = connection.execute(
                f"delete from {place(schema, table)} where rowid in (select unnest(?)) returning {column}, rowid", [list(rows)]
            )
            for message_id, row in deleted.fetchall():
                if message_id is not None:
                    messages.setdefault(message_id, set()).update(rows[row])
            _count(counts, f"{schema}.{table}", rows.values())
        _erase_discards(connection, schema, tables, messages, counts)
    ids = sorted(
        {
            (digest_of(one.workspace_id, one.kind, folded(one.kind, one.value)), erasure.before_us)
            for erasure in erasures
            for one in erasure.ids
        }
    )
    connection.execute(_REMEMBER, [[digest for digest, _ in ids], [_instant(before) for _, before in ids], _instant(now_us)])
    if deleting:
        connection.execute("insert into _cdi.unrewritten values (?)", [_instant(now_us)])
    return Erased(counts, more)


def tombstones(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
    """Those of the digests that have a tombstone."""
    rows = connection.execute(_TOMBSTONES_OF, [list(digests)]).fetchall()
    return {bytes(digest): Tombstone(_us(before), _us(erased)) for digest, before, erased in rows}


def newest_us(connection: Connection) -> int:
    """When people were last erased, microseconds since 1970; 0: never."""
    return _newest(connection, NEWEST)


def oldest_unrewritten_us(connection: Connection) -> int:
    """When the first rows were erased that lie in the file still; 0: there are none."""
    return _newest(connection, OLDEST_UNREWRITTEN)


def holdings(connection: Connection, catalog: Catalog, person: Erasure) -> Iterator[tuple[str, list[bytes]]]:
    """All rows of a person as JSON objects, in pieces, by ``<schema>.<table>``."""
    for schema, tables in catalog.items():
        for table, rows, _ in _tables(connection, schema, tables, [person], None):
            found = sorted(rows)
            for start in range(0, len(found), _PAGE):
                page = connection.execute(
                    f"select to_json(t)::varchar from {place(schema, table)} t where t.rowid in (select unnest(?)) order by t.rowid",
                    [found[start : start + _PAGE]],
                ).fetchall()
                yield f"{schema}.{table}", [row[0].encode() for row in page]


def _tables(
    connection: Connection,
    schema: str,
    tables: Mapping[str, Mapping[str, ColumnType]],
    erasures: Sequence[Erasure],
    limit: int | None,
) -> Iterator[tuple[str, _Rows, bool]]:
    """The tables of a schema with the people's rows in them, and whether some were left out because a column had more than ``limit``."""
    kinds = {one.kind for erasure in erasures for one in erasure.ids}
    connection.register(_PEOPLE, _people(erasures))
    try:
        for table, columns in tables.items():
            rows: _Rows = defaultdict(set)
            cut = False
            for found in found_by(table, columns, kinds):
                hits = connection.execute(_find(schema, table, found, limit)).fetchall()
                cut = cut or len(hits) == limit
                for row, number in hits:
                    rows[row].add(number)
            if table == naming.REJECTED_EVENTS:
                _find_rejected(connection, schema, erasures, rows)
            yield table, rows, cut
    finally:
        with contextlib.suppress(duckdb.Error):  # refused in a transaction that has failed; the next people take the name over
            connection.unregister(_PEOPLE)


def _within(rows: _Rows, vectors: int) -> _Rows:
    """Those of the rows that lie in the first so many vectors."""
    kept: _Rows = {}
    seen: set[int] = set()
    for row in sorted(rows):
        seen.add(row // _VECTOR)
        if len(seen) > vectors:
            break
        kept[row] = rows[row]
    return kept


def _people(erasures: Sequence[Erasure]) -> Any:
    rows = [(number, *one, erasure.before_us) for number, erasure in enumerate(erasures) for one in erasure.ids]
    numbers, workspaces, kinds, values, before = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pa.table(
        {
            "number": pa.array(numbers, pa.int32()),
            "workspace_id": pa.array(workspaces, pa.string()),
            "kind": pa.array(kinds, pa.string()),
            "value": pa.array(values, pa.string()),
            "before": pa.array(before, pa.timestamp("us", "UTC")),
        }
    )


def _find(schema: str, table: str, found: Found, limit: int | None) -> str:
    """The rows of a table that one column gives to the people of the registered table."""
    column, value = f"t.{quoted(found.column)}", "p.value"
    if found.folded:
        column, value = f"lower({column})", f"lower({value})"
    kind = f"'{found.kind.replace(chr(39), chr(39) * 2)}'" if found.kind else "t.external_id_type"
    dated = " and (t.received_at is null or t.received_at <= p.before)" if found.dated else ""
    return (
        f"select t.rowid, p.number from {place(schema, table)} t join {_PEOPLE} p on {column} = {value} "
        f"where p.kind = {kind} and t.workspace_id = p.workspace_id{dated}" + (f" limit {limit}" if limit else "")
    )


def _find_rejected(connection: Connection, schema: str, erasures: Sequence[Erasure], rows: _Rows) -> None:
    """Rejected events that say an id of a person anywhere in their payload."""
    owners: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, erasure in enumerate(erasures):
        for one in erasure.ids:
            owners[one.workspace_id, one.value].append(number)
    read = connection.execute(
        f"""select rowid, workspace_id, epoch_us(received_at), payload, payload_encoding
        from {place(schema, naming.REJECTED_EVENTS)} where payload is not null and workspace_id in (select workspace_id from {_PEOPLE})"""
    )
    while page := read.fetchmany(_PAGE):
        for row, workspace_id, received_us, payload, encoding in page:
            for value in payload_values(payload, encoding):
                for number in owners.get((workspace_id, value), ()):
                    if (received_us or 0) <= erasures[number].before_us:
                        rows[row].add(number)


def _erase_discards(
    connection: Connection,
    schema: str,
    tables: Mapping[str, Mapping[str, ColumnType]],
    messages: Mapping[str, set[int]],
    counts: Sequence[dict[str, int]],
) -> None:
    """What did not fit a column, of the events that were erased."""
    if naming.DISCARDS not in tables or not messages:
        return
    deleted = connection.execute(
        f"delete from {place(schema, naming.DISCARDS)} where message_id in (select unnest(?)) returning message_id", [list(messages)]
    ).fetchall()
    _count(counts, f"{schema}.{naming.DISCARDS}", [messages[message_id] for (message_id,) in deleted])


def _count(counts: Sequence[dict[str, int]], store: str, owners: Any) -> None:
    for numbers in owners:
        for number in numbers:
            counts[number][store] = counts[number].get(store, 0) + 1


def _newest(connection: Connection, statement: str) -> int:
    ((instant,),) = connection.execute(statement).fetchall()
    return _us(instant) if instant is not None else 0


def _instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def _us(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)
