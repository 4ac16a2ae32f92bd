"""Erasing people from the lake, and reading what it holds of them.

Every file is read once for all people, and only its columns that can hold an id. Files never change, so what was found in one holds as
long as the table has it. Files with rows of the people are copied without these; the old ones are deleted by ``rewrite``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cdi_privacy import digest_of
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.erasure import Erased, Erasure, Found, folded, found_by
from cdi_warehouse_loader.domain.payload_values import payload_values
from cdi_warehouse_loader.warehouses.iceberg.drafts import Draft, Tables
from cdi_warehouse_loader.warehouses.iceberg.files import Mask, batches, copy, without
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage
from cdi_warehouse_loader.warehouses.iceberg.table import LakeTable

MAX_ROWS: Final = 200_000
"""Rows of people after which a pass looks into no further file."""

_PAGE: Final = 500
_ABOUT: Final = ("id", "workspace_id", "received_at", "external_id_type")
_PAYLOAD: Final = ("workspace_id", "received_at", "payload", "payload_encoding")

_Rows = dict[int, set[int]]
"""Row of a file → the erasures, by number, that it belongs to."""

_json = msgspec.json.Encoder().encode


class Erasing:
    """One pass over the tables.

    Args:
        storage: where they are.
        erasures: whose rows are looked for.
        limit: rows after which no further file is looked into; ``None``: there is no limit.
    """

    def __init__(self, storage: Storage, erasures: Sequence[Erasure], limit: int | None = MAX_ROWS) -> None:
        self._storage = storage
        self._erasures = erasures
        self._limit = limit
        self._kinds = {one.kind for erasure in erasures for one in erasure.ids}
        self._owners: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        self._anywhere: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, erasure in enumerate(erasures):
            for one in erasure.ids:
                self._anywhere[one.workspace_id, one.value].append(number)
                for value in {one.value, folded(one.kind, one.value)}:
                    self._owners[one.workspace_id, one.kind, value].append(number)
        self._found: dict[str, _Rows] = {}
        self._messages: dict[str, Mapping[int, str]] = {}
        self._rows = 0
        self._is_cut = False

    def look_through(self, tables: Tables) -> None:
        """Finds rows in files that were not looked through yet."""
        for (_, name), table in tables.items():
            ways = found_by(name, table.columns, self._kinds)
            if not ways and name != naming.REJECTED_EVENTS:
                continue
            for file in table.files:
                if self._limit is not None and self._rows >= self._limit:
                    self._is_cut = self._is_cut or file not in self._found
                elif file not in self._found:
                    self._found[file] = self._rejected_in(file) if name == naming.REJECTED_EVENTS else self._people_in(file, ways)
                    self._rows += len(self._found[file])

    def rows_of(self, table: LakeTable) -> dict[str, _Rows]:
        """What was found in a table, by file."""
        return {file: rows for file in table.files if (rows := self._found.get(file))}

    def erase(self, tables: Tables, draft: Draft) -> Erased:
        """Drafts the tables without the rows.

        Args:
            tables: all tables as they are now, and until the draft is committed.
            draft: of these tables.
        """
        self.look_through(tables)
        counts: list[dict[str, int]] = [{} for _ in self._erasures]
        messages: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for (schema, name), table in tables.items():
            found = self.rows_of(table)
            for file, rows in found.items():
                for row, message_id in self._messages.get(file, {}).items():
                    messages[schema][message_id].update(rows[row])
            self._take_out(draft, (schema, name), found, counts)
        for schema, owners in messages.items():
            if discards := tables.get((schema, naming.DISCARDS)):
                self._take_out(draft, (schema, naming.DISCARDS), self._discards_in(discards, owners), counts)
        return Erased(counts, self._is_cut)

    def digests(self) -> list[tuple[bytes, int]]:
        """What stays of the ids, each with the time until which events do not come back."""
        newest: dict[bytes, int] = {}
        for erasure in self._erasures:
            for one in erasure.ids:
                digest = digest_of(one.workspace_id, one.kind, folded(one.kind, one.value))
                newest[digest] = max(newest.get(digest, 0), erasure.before_us)
        return sorted(newest.items())

    def _take_out(self, draft: Draft, name: tuple[str, str], found: Mapping[str, _Rows], counts: Sequence[dict[str, int]]) -> None:
        if not found:
            return
        table = draft.of(name, {})
        for file, rows in found.items():
            source = table.base.files[file]
            rest = copy(self._storage, table.place, table.schema, [source], _all_but(found))
            table.replace([source], [rest] if rest is not None else [])
            store = ".".join(name)
            for numbers in rows.values():
                for number in numbers:
                    counts[number][store] = counts[number].get(store, 0) + 1

    def _people_in(self, file: str, ways: Sequence[Found]) -> _Rows:
        hits: _Rows = defaultdict(set)
        messages: dict[int, str] = {}
        for first, batch in batches(self._storage, file, list(dict.fromkeys([*(way.column for way in ways), *_ABOUT]))):
            for way in ways:
                for row, number in self._hits(batch, way):
                    hits[first + row].add(number)
                    if "id" in batch.schema.names and "received_at" in batch.schema.names:
                        messages[first + row] = batch.column("id")[row].as_py()
        if any(way.dated for way in ways):
            self._messages[file] = messages
        return dict(hits)

    def _hits(self, batch: Any, way: Found) -> Iterator[tuple[int, int]]:
        """Rows of a batch that one column gives to people, with the number of whose erasure."""
        if way.column not in batch.schema.names:
            return
        values = {value for _, kind, value in self._owners if way.kind in ("", kind)}
        column = batch.column(way.column)
        places = pc.indices_nonzero(pc.is_in(pc.utf8_lower(column) if way.folded else column, pa.array(sorted(values), pa.string())))
        if not len(places):
            return
        found = batch.take(places).to_pydict()
        for place, row in enumerate(places.to_pylist()):
            value = found[way.column][place]
            kind = way.kind or found["external_id_type"][place]
            for number in self._owners.get((found["workspace_id"][place], kind, value.lower() if way.folded else value), ()):
                if not way.dated or self._is_before(found.get("received_at"), place, number):
                    yield row, number

    def _rejected_in(self, file: str) -> _Rows:
        """Rejected events that say an id of a person anywhere in their payload."""
        hits: _Rows = defaultdict(set)
        workspaces = {workspace for workspace, _ in self._anywhere}
        for first, batch in batches(self._storage, file, _PAYLOAD):
            if "payload" not in batch.schema.names:
                continue
            rows = batch.to_pydict()
            for row, (workspace, payload) in enumerate(zip(rows["workspace_id"], rows["payload"], strict=True)):
                if payload is None or workspace not in workspaces:
                    continue
                for value in payload_values(payload, rows["payload_encoding"][row]):
                    for number in self._anywhere.get((workspace, value), ()):
                        if self._is_before(rows.get("received_at"), row, number):
                            hits[first + row].add(number)
        return dict(hits)

    def _discards_in(self, table: LakeTable, owners: Mapping[str, set[int]]) -> dict[str, _Rows]:
        """What did not fit a column, of the events that are erased."""
        sought = pa.array(sorted(owners), pa.string())
        found: dict[str, _Rows] = {}
        for file in table.files:
            hits: _Rows = {}
            for first, batch in batches(self._storage, file, ["message_id"]):
                column = batch.column(0)
                for row in pc.indices_nonzero(pc.is_in(column, sought)).to_pylist():
                    hits[first + row] = owners[column[row].as_py()]
            if hits:
                found[file] = hits
        return found

    def _is_before(self, received: Sequence[Any] | None, row: int, number: int) -> bool:
        at = received[row] if received is not None else None
        return at is None or round(at.timestamp() * 1_000_000) <= self._erasures[number].before_us


def _all_but(found: Mapping[str, _Rows]) -> Mask:
    """The rows that stay."""
    return lambda file, first, batch: without(found[file], first, batch.num_rows)


def holdings(storage: Storage, tables: Tables, person: Erasure) -> Iterator[tuple[str, list[bytes]]]:
    """All rows of a person as JSON objects, in pieces, by ``<schema>.<table>``."""
    looking = Erasing(storage, [person], limit=None)
    looking.look_through(tables)
    for (schema, name), table in tables.items():
        for file, rows in looking.rows_of(table).items():
            for page in _pages(storage, file, rows):
                yield f"{schema}.{name}", page


def _pages(storage: Storage, file: str, rows: Iterable[int]) -> Iterator[list[bytes]]:
    wanted = sorted(rows)
    for first, batch in batches(storage, file):
        inside = [row - first for row in wanted if first <= row < first + batch.num_rows]
        for start in range(0, len(inside), _PAGE):
            yield [_json(row) for row in batch.take(pa.array(inside[start : start + _PAGE])).to_pylist()]
