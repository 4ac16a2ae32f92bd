"""Clean rooms in the embedded warehouse: documents, the ledger of queries, and totals before noise.

Each write is one statement and on disk when it returns. Totals are read beside the loading, as people's queries are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb
import msgspec

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Internal, InvalidArgument
from cdi_warehouse_loader.domain.aggregates import Plan
from cdi_warehouse_loader.domain.clean_room import CleanRoom
from cdi_warehouse_loader.domain.ledger import Entry, Outcome
from cdi_warehouse_loader.domain.release import Answer
from cdi_warehouse_loader.ports import QueryLimits, Totals
from cdi_warehouse_loader.warehouses.duckdb.aggregates import EPOCH, statement_of
from cdi_warehouse_loader.warehouses.duckdb.query import run_query

OWN_TABLES: Final = (
    """create table if not exists _cdi.clean_rooms (
        workspace_id varchar not null, name varchar not null, document varchar not null, primary key (workspace_id, name))""",
    """create table if not exists _cdi.clean_room_queries (
        query_id bigint not null, workspace_id varchar not null, clean_room varchar not null, version integer not null,
        partner varchar not null, asked_at timestamptz not null, query varchar not null, epsilon_millionths bigint not null,
        outcome varchar not null, answered_at timestamptz, answer varchar, group_count integer not null, repeats integer not null)""",
)

_ENTRY: Final = """query_id, workspace_id, clean_room, version, partner, epoch_us(asked_at), query, epsilon_millionths, outcome,
    coalesce(epoch_us(answered_at), 0), answer, group_count, repeats"""
_READ_ENTRY: Final = f"select {_ENTRY} from _cdi.clean_room_queries"
_ADD: Final = f"""insert into _cdi.clean_room_queries
    select coalesce(max(query_id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, 'paid', null, null, 0, 0 from _cdi.clean_room_queries
    returning {_ENTRY}"""
_SETTLE: Final = """update _cdi.clean_room_queries set outcome = $2, answered_at = $3, answer = $4, group_count = $5
    where query_id = $1 and outcome = 'paid'"""


class DuckDbCleanRooms:
    """See ``ports.CleanRooms``.

    Args:
        loading: the connection that writes.
        querying: the one of queries.
        translated: turns DuckDB's exceptions into faults.
    """

    def __init__(
        self,
        loading: duckdb.DuckDBPyConnection,
        querying: duckdb.DuckDBPyConnection,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._loading = loading
        self._querying = querying
        self._translated = translated

    def document(self, workspace_id: str, name: str) -> CleanRoom | None:
        """See ``ports.CleanRooms``."""
        rows = self._run("select document from _cdi.clean_rooms where workspace_id = $1 and name = $2", [workspace_id, name])
        return msgspec.json.decode(rows[0][0], type=CleanRoom) if rows else None

    def put_document(self, room: CleanRoom) -> None:
        """See ``ports.CleanRooms``."""
        text = msgspec.json.encode(room).decode()
        self._run("insert or replace into _cdi.clean_rooms values ($1, $2, $3)", [room.workspace_id, room.name, text])

    def spent(self, workspace_id: str, clean_room: str, partner: str, since_us: int) -> int:
        """See ``ports.CleanRooms``."""
        ((spent,),) = self._run(
            """select coalesce(sum(epsilon_millionths), 0) from _cdi.clean_room_queries
            where workspace_id = $1 and clean_room = $2 and partner = $3 and asked_at >= $4""",
            [workspace_id, clean_room, partner, _instant(since_us)],
        )
        return int(spent)

    def find(self, like: Entry, since_us: int) -> Entry | None:
        """See ``ports.CleanRooms``."""
        where = "where workspace_id = $1 and clean_room = $2 and version = $3 and partner = $4 and query = $5 and asked_at >= $6"
        values = [like.workspace_id, like.clean_room, like.version, like.partner, like.query, _instant(since_us)]
        rows = self._run(f"{_READ_ENTRY} {where}", values)
        return _entry(rows[0]) if rows else None

    def add(self, entry: Entry) -> Entry:
        """See ``ports.CleanRooms``."""
        values = [entry.workspace_id, entry.clean_room, entry.version, entry.partner, _instant(entry.asked_us), entry.query, entry.epsilon]
        return _entry(self._run(_ADD, values)[0])

    def settle(self, query_id: int, answer: Answer, now_us: int) -> Entry:
        """See ``ports.CleanRooms``."""
        outcome = Outcome.REFUSED if answer.too_few_outside else Outcome.ANSWERED
        text = msgspec.json.encode(answer).decode()
        self._run(_SETTLE, [query_id, outcome.value, _instant(now_us), text, len(answer.groups)])
        return _entry(self._run(f"{_READ_ENTRY} where query_id = $1", [query_id])[0])

    def repeat(self, query_id: int) -> None:
        """See ``ports.CleanRooms``."""
        self._run("update _cdi.clean_room_queries set repeats = repeats + 1 where query_id = $1", [query_id])

    def log(self, workspace_id: str, clean_room: str, partner: str, before: int, limit: int) -> Sequence[Entry]:
        """See ``ports.CleanRooms``."""
        where = "where workspace_id = $1 and clean_room = $2 and $3 in ('', partner) and query_id < $4 order by query_id desc limit $5"
        return [_entry(row) for row in self._run(f"{_READ_ENTRY} {where}", [workspace_id, clean_room, partner, before, limit])]

    def totals(self, plan: Plan, limits: QueryLimits) -> Totals:
        """See ``ports.CleanRooms``."""
        text, parameters = statement_of(plan)
        try:
            with self._translated():
                rows = run_query(self._querying, text, limits, parameters).values
        except InvalidArgument:
            # What DuckDB says may quote a row.
            raise Internal(error_pb2.ERROR_REASON_INTERNAL, "the statement of the query failed") from None
        last_key = 1 + len(plan.keys)
        groups: Mapping[tuple[str, ...], Sequence[int]] = {
            tuple(row[1:last_key]): [int(number) for number in row[last_key:]] for row in rows if not row[0]
        }
        return Totals(groups, sum(int(row[last_key]) for row in rows if row[0]))

    def _run(self, text: str, values: Sequence[object]) -> list[Any]:
        with self._translated():
            return self._loading.execute(text, values).fetchall()


def _entry(row: Sequence[Any]) -> Entry:
    *paid, outcome, answered_us, answer, groups, repeats = row
    made = Entry(*paid)
    decoded = msgspec.json.decode(answer, type=Answer) if answer is not None else None
    return replace(made, outcome=Outcome(outcome), answered_us=answered_us, answer=decoded, groups=groups, repeats=repeats)


def _instant(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
