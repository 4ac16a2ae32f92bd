"""What the application needs from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cdi.event.v1.rejected_event_pb2 import RejectedEvent
from cdi_collector.domain.sources import Source, SourceSnapshot


class EventLog(Protocol):
    """Where accepted events go."""

    def store(self, frames: Mapping[int, Sequence[bytes]], links: Mapping[int, Sequence[str]]) -> asyncio.Future[None]:
        """Takes framed events over at once, so that those of a partition are stored in the order of the calls.

        Args:
            frames: framed events by partition.
            links: traceparents of the sampled ones among them, by partition.

        Returns:
            What is done when all are durable. Fails with ``Unavailable`` when at least one is not known to be stored. Others of
            them may be: sending again is safe, since message ids are deduplicated.

        Raises:
            Unavailable: nothing was taken over.
        """
        ...


class RejectionLog(Protocol):
    """Where refused events of a batch go."""

    async def reject(self, workspace_id: str, events: Sequence[RejectedEvent]) -> None:
        """Returns when the rejected events are durable; raises ``Unavailable`` otherwise."""
        ...


class SourceStore(Protocol):
    """The sources in the database."""

    async def apply(self, source: Source) -> tuple[Source, bool]:
        """Makes the stored source be as given, whatever its ``version`` says.

        Returns:
            The source as it is now, and whether that is a change.

        Raises:
            AlreadyExists: another source has one of the write keys.
            StoreUnavailable: the database does not answer.
        """
        ...

    async def create(self, source: Source) -> Source:
        """Stores a new source. Raises ``AlreadyExists``, also when another source has one of its keys, or ``StoreUnavailable``."""
        ...

    async def change(self, workspace_id: str, source_id: str, decide: Callable[[Source], Source]) -> Source:
        """Stores what ``decide`` makes of a source; nobody else changes it meanwhile. Keys that have ended are gone before.

        Returns:
            The source as it is now.

        Raises:
            NotFound: there is no such source.
            AlreadyExists: another source has one of the write keys.
            StoreUnavailable: the database does not answer.
        """
        ...

    async def page(self, workspace_id: str, after: str, limit: int) -> Sequence[Source]:
        """Sources of a workspace with ids above ``after``, by id; without hashes. Raises ``StoreUnavailable``."""
        ...

    async def all(self) -> Sequence[Source]:
        """Every source. Raises ``StoreUnavailable``."""
        ...


class Directory(Protocol):
    """The sources as this process knows them."""

    @property
    def snapshot(self) -> SourceSnapshot:
        """The newest known sources. May be a second or two behind another replica, and older while the database is away."""
        ...

    async def refresh(self) -> None:
        """Reads the sources now. Raises ``StoreUnavailable``."""
        ...
