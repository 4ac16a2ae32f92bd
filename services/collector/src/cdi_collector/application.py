"""The use cases: take the events of a request, apply and list sources."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cdi_collector.domain.client_event import Item
from cdi_collector.domain.intake import Arrival, Intake, admit
from cdi_collector.domain.rejections import rejected_events
from cdi_collector.domain.sources import Source, SourceSnapshot, violations
from cdi_collector.metrics import Tally
from cdi_collector.ports import Directory, EventLog, RejectionLog, SourceStore
from cdi_collector.tracing import CollectSpans, Sampler
from cdi_kernel import ids
from cdi_kernel.faults import Unavailable

VERSION: Final = "0.1.0"
_RETRY_SECONDS: Final = 1.0
_MAX_PAGE: Final = 1_000
_DEFAULT_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Submission:
    """The events of one request and what came with them.

    Attributes:
        protocol: ``http`` or ``grpc``.
        items: in order.
        sent_us: when the client sent it, by its clock; ``None`` if it did not say.
        client_ip: where it came from.
        user_agent: its User-Agent header.
        traceparent: its W3C trace context; empty if it has none.
        payloads: the bytes of the items, for a protocol that answers for the whole request: refused items are then stored as
            rejected. ``None`` for one that answers per item.
    """

    protocol: str
    items: Sequence[Item]
    sent_us: int | None
    client_ip: str
    user_agent: str
    traceparent: str = ""
    payloads: Callable[[], Sequence[bytes]] | None = None


class Budget:
    """How much of what strangers sent is in memory at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, amount: int) -> None:
        """Counts bytes in; raises ``Unavailable`` when there is no room for them."""
        if self.used + amount > self._limit:
            raise Unavailable("collector", "too many requests are in flight", retry_after=_RETRY_SECONDS)
        self.used += amount

    def give(self, amount: int) -> None:
        """Counts bytes out."""
        self.used -= amount


class Collector:
    """Takes events: when ``collect`` returns, they are durable.

    Attributes:
        tally: what was counted; doors add the requests that they refuse.
    """

    def __init__(self, directory: Directory, events: EventLog, rejections: RejectionLog, sampler: Sampler, partitions: int) -> None:
        self._directory = directory
        self._events = events
        self._rejections = rejections
        self._sampler = sampler
        self._partitions = partitions
        self.tally = Tally()

    @property
    def sources(self) -> SourceSnapshot:
        """The newest known sources."""
        return self._directory.snapshot

    def authenticate(self, write_key: str | None) -> Source:
        """The source of a write key; raises ``Unauthenticated`` or ``PermissionDenied``."""
        return self._directory.snapshot.authenticate(write_key or "")

    async def collect(self, source: Source, submission: Submission) -> Intake:
        """Applies the rules and stores what passes, and what does not if nobody is told about single items.

        Everything up to the hand-over runs before the first await, so calls keep their order.

        Raises:
            Unavailable: nothing of the request is promised.
        """
        received_us = time.time_ns() // 1_000
        arrival = Arrival(
            source,
            received_us,
            submission.sent_us,
            submission.client_ip,
            submission.user_agent,
            self._partitions,
            new_id,
        )
        traced = self._sampler.pick(len(submission.items), submission.traceparent)
        with CollectSpans(traced, submission.traceparent, received_us) as spans:
            traceparents = spans.traceparents if traced else {}
            intake = admit(submission.items, arrival, traceparents)
            spans.describe(intake.message_ids)
            stored = self._events.store(intake.frames, intake.links)
            if intake.refusals and submission.payloads is not None:
                refused = rejected_events(intake, submission.payloads(), source, received_us, VERSION, new_id)
                await asyncio.gather(stored, self._rejections.reject(source.workspace_id, refused))
            else:
                await stored
        self.tally.stored(intake, submission.protocol)
        return intake


class Sources:
    """Applies and lists sources."""

    def __init__(self, store: SourceStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def apply(self, source: Source, write_keys: Sequence[str]) -> tuple[Source, bool]:
        """Makes the source be as given and known here at once, elsewhere within the refresh time.

        Args:
            source: with the hashes of ``write_keys``.
            write_keys: in the clear, to be checked only.

        Raises:
            InvalidArgument: a field breaks its rule.
            AlreadyExists: another source has one of the keys.
        """
        if (fault := violations(source, write_keys)) is not None:
            raise fault
        applied, changed = await self._store.apply(source)
        await self._directory.refresh()
        return applied, changed

    async def page(self, workspace_id: str, after: str, size: int) -> tuple[Sequence[Source], str]:
        """At most ``size`` sources (0: 100) above ``after``, and where the next page starts; empty on the last."""
        limit = min(size or _DEFAULT_PAGE, _MAX_PAGE)
        found = await self._store.page(workspace_id, after, limit + 1)
        shown = found[:limit]
        return shown, shown[-1].source_id if len(found) > limit else ""


def new_id() -> str:
    """A fresh UUIDv7 as text."""
    return str(ids.uuid7())
