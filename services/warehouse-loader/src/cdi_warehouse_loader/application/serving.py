"""Serving: documents, queries, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cdi_warehouse_loader.application.access import Access
from cdi_warehouse_loader.domain.documents import Document, succeed
from cdi_warehouse_loader.domain.load import CountKey
from cdi_warehouse_loader.ports import QueryLimits, Question, Rows, Warehouse

DEFAULT_ROWS: Final = 1_000
MAX_ROWS: Final = 10_000
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


class Serving:
    """What people and other services ask of the loader.

    Args:
        access: the warehouse.
        query_seconds: time that one query may take.
    """

    def __init__(self, access: Access, query_seconds: float) -> None:
        self._access = access
        self._query_seconds = query_seconds

    async def apply(self, wanted: Document) -> tuple[Document, bool]:
        """Makes the warehouse be as given; the document as stored, and whether anything changed.

        Raises:
            InvalidArgument: a field breaks its rule.
            FailedPrecondition: another warehouse of the workspace has the schema.
        """

        def work(warehouse: Warehouse) -> tuple[Document, bool]:
            stored = warehouse.documents()
            document = succeed(wanted, stored)
            if document in stored:
                return document, False
            warehouse.ensure_tables(document.schema)
            warehouse.put_document(document)
            return document, True

        applied = await self._access.write(work)
        await self._access.refresh_targets()
        return applied

    async def documents(self, workspace_id: str, after: str, limit: int) -> tuple[Sequence[Document], bool]:
        """Documents of a workspace by name, from after a name, and whether there are more."""
        stored = await self._access.write(lambda warehouse: warehouse.documents())
        own = [document for document in stored if document.workspace_id == workspace_id and document.name > after]
        return own[:limit], len(own) > limit

    async def query(self, sql: str, max_rows: int) -> Rows:
        """Runs a read-only statement.

        Args:
            sql: one statement.
            max_rows: 0 for the default.

        Raises:
            InvalidArgument: not one read-only statement, or it fails.
            TooLarge: over a limit.
        """
        limits = QueryLimits(min(max_rows or DEFAULT_ROWS, MAX_ROWS), MAX_ANSWER_BYTES, self._query_seconds)
        return await self._access.read(lambda warehouse: warehouse.query(Question(sql, limits)))

    async def counts(self) -> Mapping[CountKey, int]:
        """What became of all events."""
        return await self._access.read(lambda warehouse: warehouse.counts())
