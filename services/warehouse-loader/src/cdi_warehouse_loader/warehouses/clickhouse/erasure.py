"""Erasing people from ClickHouse, and reading what it holds of them.

The ids of all people are one small table in the server's memory, each column that can hold an id is joined with it once, and the keys of
the rows that are found are another such table, which deletions name. So no id stands in a statement, which the server would keep in the
files of a mutation and in its log of queries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final
from uuid import uuid4

import pyarrow as pa

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.erasure import Erasure, Found, Tombstone, folded, found_by
from cdi_warehouse_loader.domain.layout import key_of
from cdi_warehouse_loader.domain.load import Catalog
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.clickhouse.connection import Connection
from cdi_warehouse_loader.warehouses.clickhouse.sql import LOAD, OWN, is_people, place, quoted, stored, stored_name, text

_PEOPLE: Final = f"{OWN}.people"
_FOUND: Final = f"{OWN}.found"
_TOMBSTONES: Final = f"{OWN}.tombstones"
_PAGE: Final = 500
_DIGESTS: Final = 5_000
_TIME: Final = pa.timestamp("us", "UTC")
_TEXTS: Final = ("first", "second")
_NUMBERS: Final = ("third", "fourth")

_Tables = Mapping[str, Mapping[str, ColumnType]]


class Search:
    """The rows of people, found in the tables of the catalog, for the time of a block.

    Args:
        connection: to the server.
        erasures: of whom.
    """

    def __init__(self, connection: Connection, erasures: Sequence[Erasure]) -> None:
        self._connection = connection
        self._erasures = erasures
        self._job = uuid4().hex

    def __enter__(self) -> Search:
        for table in (_PEOPLE, _FOUND):  # of a process that was killed
            self._connection.run(f"alter table {table} delete where at < now() - interval 1 hour")
        rows = [(number, *one, erasure.before_us) for number, erasure in enumerate(self._erasures) for one in erasure.ids]
        numbers, workspaces, kinds, values, before = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        people = {
            "job": pa.array([self._job] * len(rows), pa.string()),
            "number": pa.array(numbers, pa.uint32()),
            "workspace_id": pa.array(workspaces, pa.string()),
            "kind": pa.array(kinds, pa.string()),
            "value": pa.array(values, pa.string()),
            "before": pa.array(before, _TIME),
        }
        self._connection.insert(_PEOPLE, pa.record_batch(people))
        return self

    def __exit__(self, *_: object) -> None:
        for table in (_PEOPLE, _FOUND):
            self._connection.run(f"alter table {table} delete where job = '{self._job}'")

    def in_schema(self, schema: str, tables: _Tables) -> Mapping[str, Mapping[int, int]]:
        """Finds the rows in all tables of a schema; by table, how many of each erasure."""
        kinds = {one.kind for erasure in self._erasures for one in erasure.ids}
        for table, columns in tables.items():
            for found in found_by(table, columns, kinds):
                self._connection.run(self._find(schema, table, columns, found))
            if table == naming.REJECTED_EVENTS:
                self._find_rejected(schema)
        if naming.DISCARDS in tables:
            self._connection.run(self._find_discards(schema))
        counted: dict[str, dict[int, int]] = {}
        hits = self._connection.rows(
            f"""select place, number, uniqExact(first, second, third, fourth) from {_FOUND}
            where job = '{self._job}' and startsWith(place, {text(schema + ".")}) group by place, number"""
        )
        for found_place, number, rows in hits:
            counted.setdefault(found_place.removeprefix(f"{schema}."), {})[number] = rows
        return counted

    def delete(self, schema: str, table: str) -> None:
        """Deletes the rows that were found."""
        self._connection.run(f"alter table {stored(schema, table)} delete where {self._is_found(schema, table)}")

    def rows(self, schema: str, table: str) -> Iterator[bytes]:
        """The rows that were found, as JSON objects."""
        shown = "*" if is_people(table) else f"* except ({LOAD})"
        final = "" if is_people(table) else " final"
        return self._connection.lines(f"select {shown} from {place(schema, table)}{final} where {self._is_found(schema, table)}")

    def _is_found(self, schema: str, table: str) -> str:
        key = key_of(table)
        columns = key[:1] if table == naming.DISCARDS else key  # all of a message
        fields = _fields(columns)
        where = f"job = '{self._job}' and place = {text(f'{schema}.{table}')}"
        return f"({', '.join(map(quoted, columns))}) in (select {', '.join(fields)} from {_FOUND} where {where})"

    def _find(self, schema: str, table: str, columns: Mapping[str, ColumnType], found: Found) -> str:
        """The rows of a table that one column gives to the people."""
        column, value = f"t.{quoted(found.column)}", "p.value"
        if found.folded:
            column, value = f"lowerUTF8({column})", f"lowerUTF8({value})"
        kind = text(found.kind) if found.kind else "t.external_id_type"
        dated = " and (t.received_at is null or t.received_at <= p.before)" if found.dated else ""
        message = "t.id" if "event_seq" in columns else "null"
        key = key_of(table)
        return (
            f"insert into {_FOUND} (job, place, number, message_id, {', '.join(_fields(key))}) "
            f"select '{self._job}', {text(f'{schema}.{table}')}, p.number, {message}, {', '.join(f't.{quoted(name)}' for name in key)} "
            f"from {stored(schema, table)} as t join {_PEOPLE} as p on {column} = {value} and t.workspace_id = p.workspace_id "
            f"where p.job = '{self._job}' and p.kind = {kind}{dated}"
        )

    def _find_discards(self, schema: str) -> str:
        """What did not fit a column, of the events that were found."""
        found_place = text(f"{schema}.{naming.DISCARDS}")
        return (
            f"insert into {_FOUND} (job, place, number, first, second) "
            f"select '{self._job}', {found_place}, f.number, d.message_id, "
            f"concat(d.table_name, '.', d.column_name, '.', d.reason, '.', d.column_value) "
            f"from {stored(schema, naming.DISCARDS)} as d join (select distinct number, message_id from {_FOUND} "
            f"where job = '{self._job}' and startsWith(place, {text(schema + '.')}) and message_id is not null) as f "
            f"on f.message_id = d.message_id"
        )

    def _find_rejected(self, schema: str) -> None:
        """Rejected events that say an id of a person anywhere in their payload."""
        owners: dict[tuple[str, str], list[int]] = {}
        for number, erasure in enumerate(self._erasures):
            for one in erasure.ids:
                owners.setdefault((one.workspace_id, one.value), []).append(number)
        hits: set[tuple[int, str, str]] = set()
        pages = self._connection.pages(
            f"""select workspace_id, rejection_id, toUnixTimestamp64Micro(received_at), payload, payload_encoding
            from {place(schema, naming.REJECTED_EVENTS)} final
            where payload is not null and workspace_id in (select workspace_id from {_PEOPLE} where job = '{self._job}')"""
        )
        for page in pages:
            for workspace_id, rejection_id, received_us, payload, encoding in page:
                for value in payload_values(payload, encoding):
                    for number in owners.get((workspace_id, value), ()):
                        if (received_us or 0) <= self._erasures[number].before_us:
                            hits.add((number, workspace_id, rejection_id))
        rows = list(hits)
        batch = {
            "job": pa.array([self._job] * len(rows), pa.string()),
            "place": pa.array([f"{schema}.{naming.REJECTED_EVENTS}"] * len(rows), pa.string()),
            "number": pa.array([row[0] for row in rows], pa.uint32()),
            "first": pa.array([row[1] for row in rows], pa.string()),
            "second": pa.array([row[2] for row in rows], pa.string()),
        }
        if rows:
            self._connection.insert(_FOUND, pa.record_batch(batch))


def remember(connection: Connection, erasures: Sequence[Erasure], now_us: int) -> None:
    """Leaves tombstones."""
    ids = sorted(
        {
            (digest_of(one.workspace_id, one.kind, folded(one.kind, one.value)), erasure.before_us)
            for erasure in erasures
            for one in erasure.ids
        }
    )
    rows = {
        "digest": pa.array([digest for digest, _ in ids], pa.binary()),
        "erased_before": pa.array([before for _, before in ids], _TIME),
        "erased_at": pa.array([now_us] * len(ids), _TIME),
    }
    connection.insert(_TOMBSTONES, pa.record_batch(rows))


def tombstones(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Tombstone]:
    """Those of the digests that have a tombstone."""
    found: dict[bytes, Tombstone] = {}
    for start in range(0, len(digests), _DIGESTS):
        rows = connection.rows(
            f"""select lower(hex(digest)), toUnixTimestamp64Micro(max(erased_before)), toUnixTimestamp64Micro(max(erased_at))
            from {_TOMBSTONES} where digest in (select toFixedString(unhex(arrayJoin(%(digests)s)), 16)) group by digest""",
            {"digests": [digest.hex() for digest in digests[start : start + _DIGESTS]]},
        )
        found |= {bytes.fromhex(digest): Tombstone(before, erased) for digest, before, erased in rows}
    return found


def note_unrewritten(connection: Connection, schema: str, tables: Iterable[str], now_us: int) -> None:
    """Notes that deleted rows lie in the files of tables until the old parts are gone."""
    names = [stored_name(table) for table in tables]
    rows = {"erased_at": pa.array([now_us] * len(names), _TIME), "schema_name": [schema] * len(names), "table_name": names}
    connection.insert(f"{OWN}.unrewritten", pa.record_batch(rows))


def oldest_unrewritten_us(connection: Connection) -> int:
    """When the first rows were erased that may lie in a file still; 0: there are none."""
    ((count, oldest),) = connection.rows(f"select count(), toUnixTimestamp64Micro(min(erased_at)) from {OWN}.unrewritten")
    return int(oldest) if count else 0


def holdings(connection: Connection, catalog: Catalog, person: Erasure) -> Iterator[tuple[str, list[bytes]]]:
    """All rows of a person as JSON objects, in pieces, by ``<schema>.<table>``."""
    with Search(connection, [person]) as search:
        for schema, tables in catalog.items():
            for table in search.in_schema(schema, tables):
                with contextlib.closing(search.rows(schema, table)) as rows:  # type: ignore[type-var]  # generators close
                    while page := list(islice(rows, _PAGE)):
                        yield f"{schema}.{table}", page


def _fields(key: Sequence[str]) -> list[str]:
    """The columns of the table of what was found that hold the key of a row."""
    numbers = key in (("partition", "event_seq"), ("seq",))
    return list((_NUMBERS if numbers else _TEXTS)[: len(key)])
