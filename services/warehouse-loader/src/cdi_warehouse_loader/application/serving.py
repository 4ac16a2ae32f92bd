"""Serving: documents, queries, counts, and how the connections are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition, NotFound
from cdi_kernel.topology import StreamName
from cdi_warehouse_loader.application.connections import Connection, Connections
from cdi_warehouse_loader.application.streaming import Stream
from cdi_warehouse_loader.domain.documents import Document, succeed
from cdi_warehouse_loader.domain.load import CountKey
from cdi_warehouse_loader.domain.rebuild import Rebuild, rebuilds
from cdi_warehouse_loader.ports import LoadEntry, Pending, QueryLimits, Question, Rows, SchemaChange, Warehouse

DEFAULT_ROWS: Final = 1_000
MAX_ROWS: Final = 10_000
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
MAX_STREAMED_ROWS: Final = 1_000_000
MAX_STREAMED_BYTES: Final = 256 * 1024 * 1024
LOADED_STREAMS: Final = (StreamName.ENRICHED, StreamName.REJECTED, StreamName.IDENTITY)


@dataclass(frozen=True, slots=True)
class Status:
    """How a connection is.

    Attributes:
        connection: which.
        down: why it is down; ``None`` while it is up.
        pending: messages that are not loaded yet, by stream.
        loads: the newest ones, newest first.
        rebuilds: all that the warehouse knows of, the oldest first.
    """

    connection: Connection
    down: str | None
    pending: Mapping[str, int]
    loads: Sequence[LoadEntry]
    rebuilds: Sequence[Rebuild] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as it was asked.

    Attributes:
        connection: name of the connection; empty for the first one.
        sql: one statement.
        max_rows: 0 for the most.
        purposes: see ``ports.Question``.
    """

    connection: str
    sql: str
    max_rows: int
    purposes: frozenset[str]


class Serving:
    """What people and other services ask of the loader.

    Args:
        connections: the warehouses.
        pending: tells how far their readers are.
        query_seconds: time that one query may take.
    """

    def __init__(self, connections: Connections, pending: Pending, query_seconds: float) -> None:
        self._connections = connections
        self._pending = pending
        self._query_seconds = query_seconds

    async def apply(self, connection: str, wanted: Document) -> tuple[Connection, Document, bool]:
        """Makes the warehouse be as given; its connection, the document as stored, and whether anything changed.

        Raises:
            InvalidArgument: a field breaks its rule.
            FailedPrecondition: another warehouse of the workspace has the schema, or the name in another connection.
            NotFound: there is no such connection.
            Unavailable: a connection is down.
        """
        chosen = self._connections.named(connection)
        await self._check_elsewhere(chosen, wanted)

        def work(warehouse: Warehouse) -> tuple[Document, bool]:
            stored = warehouse.documents()
            document = succeed(wanted, stored)
            if document in stored:
                return document, False
            warehouse.ensure_tables(document.schema)
            warehouse.put_document(document)
            return document, True

        document, changed = await chosen.access.write(work)
        await chosen.access.refresh_targets()
        return chosen, document, changed

    async def documents(self, workspace_id: str, after: str, limit: int) -> tuple[Sequence[tuple[Connection, Document]], bool]:
        """Documents of a workspace with their connections by name, from after a name, and whether there are more."""
        stored = [(connection, document) for connection in self._connections for document in await _documents(connection)]
        own = [(c, document) for c, document in stored if document.workspace_id == workspace_id and document.name > after]
        own.sort(key=lambda pair: pair[1].name)
        return own[:limit], len(own) > limit

    async def rows(self, asked: Asked) -> Rows:
        """Runs a read-only statement for a small answer.

        Raises:
            InvalidArgument: not one read-only statement, or it fails.
            TooLarge: over a limit.
        """
        limits = QueryLimits(min(asked.max_rows or DEFAULT_ROWS, MAX_ROWS), MAX_ANSWER_BYTES, self._query_seconds)
        question = Question(asked.sql, limits, asked.purposes)
        return await self._connections.named(asked.connection).access.read(lambda warehouse: warehouse.query(question))

    async def stream(self, asked: Asked) -> AsyncIterator[tuple[bytes, bool]]:
        """Runs a read-only statement: the parts of an Arrow IPC stream, and with each whether rows were left out, known with the last.

        Raises:
            InvalidArgument: not one read-only statement, or it fails.
            TooLarge: over a limit; what came before is to be thrown away.
        """
        limits = QueryLimits(min(asked.max_rows or MAX_STREAMED_ROWS, MAX_STREAMED_ROWS), MAX_STREAMED_BYTES, self._query_seconds)
        question = Question(asked.sql, limits, asked.purposes)
        access = self._connections.named(asked.connection).access
        async for part in Stream(access, question).parts():
            yield part

    async def counts(self) -> Mapping[CountKey, int]:
        """What became of all events, over all connections."""
        sums: Counter[CountKey] = Counter()
        for connection in self._connections:
            sums.update(await connection.access.read(lambda warehouse: warehouse.counts()))
        return sums

    async def status(self, loads: int) -> Sequence[Status]:
        """How the connections are, with so many of the newest loads."""
        return await asyncio.gather(*(self._status(connection, loads) for connection in self._connections))

    async def schema_changes(self, workspace_id: str, name: str) -> Sequence[SchemaChange]:
        """The history of a warehouse's tables, oldest first.

        Raises:
            NotFound: there is no such warehouse.
        """
        for connection in self._connections:
            for target in connection.access.targets.of(workspace_id):
                if target.warehouse == name:
                    return await connection.access.write(methodcaller("schema_changes", target.schema))
        where = {"resource": "warehouse", "name": name}
        raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "the workspace has no warehouse of this name", metadata=where)

    async def _status(self, connection: Connection, loads: int) -> Status:
        pending = {str(stream): await self._pending.messages(stream, connection.reader) for stream in LOADED_STREAMS}
        down = connection.access.ready()
        if down:
            return Status(connection, down, pending, ())
        entries = await connection.access.write(lambda warehouse: warehouse.loads(loads))
        known = await connection.access.write(lambda warehouse: rebuilds(warehouse.positions))
        return Status(connection, None, pending, entries, known)

    async def _check_elsewhere(self, chosen: Connection, wanted: Document) -> None:
        for connection in self._connections:
            if connection is chosen:
                continue
            if any((one.workspace_id, one.name) == (wanted.workspace_id, wanted.name) for one in await _documents(connection)):
                raise FailedPrecondition(
                    error_pb2.ERROR_REASON_ALREADY_EXISTS,
                    "the workspace has a warehouse of this name in another connection",
                    metadata={"resource": "warehouse", "name": wanted.name, "connection": connection.name},
                )


async def _documents(connection: Connection) -> Sequence[Document]:
    return await connection.access.write(lambda warehouse: warehouse.documents())
