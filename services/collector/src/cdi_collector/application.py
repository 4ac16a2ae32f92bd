"""The use cases: take the events of a request, apply and list sources."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from cdi_collector.admission import Pace
from cdi_collector.domain.client_event import ClientEvent, Item
from cdi_collector.domain.encoded_events import EncodedEvents
from cdi_collector.domain.intake import Arrival, Intake, admit
from cdi_collector.domain.protection import hidden_in_payload, hide_addresses, kept_address
from cdi_collector.domain.rejections import rejected_events
from cdi_collector.domain.signals import NO_SIGNALS, Signals
from cdi_collector.domain.sources import Source, SourceSnapshot, fingerprint_of, hash_of, violations
from cdi_collector.metrics import Tally
from cdi_collector.ports import Directory, EventLog, RejectionLog, SourceStore
from cdi_collector.tracing import CollectSpans, Sampler
from cdi_kernel import ids
from cdi_kernel.faults import InvalidArgument

VERSION: Final = "0.1.0"
_MAX_PAGE: Final = 1_000
_DEFAULT_PAGE: Final = 100
_KEY_BYTES: Final = 24
_DAY_SECONDS: Final = 86_400.0
_MAX_GRACE_DAYS: Final = 90


class Submission(msgspec.Struct, frozen=True):
    """The events of one request and what came with them.

    Attributes:
        protocol: ``http`` or ``grpc``.
        items: in order.
        sent_us: when the client sent it, by its clock; ``None`` if it did not say.
        client_ip: where it came from.
        user_agent: its User-Agent header.
        traceparent: its W3C trace context; empty if it has none.
        signals: what its headers say of its sender.
        payloads: the bytes of the items, for a protocol that answers for the whole request: refused items are then stored as
            rejected. ``None`` for one that answers per item.
    """

    protocol: str
    items: Sequence[Item] | EncodedEvents
    sent_us: int | None
    client_ip: str
    user_agent: str
    traceparent: str = ""
    signals: Signals = NO_SIGNALS
    payloads: Callable[[], Sequence[bytes]] | None = None


class Collector:
    """Takes events: when ``collect`` returns, they are durable.

    Attributes:
        tally: what was counted; doors add the requests that they refuse.
        pace: the rates of sources; doors charge what they are about to hand over.
    """

    def __init__(
        self, directory: Directory, events: EventLog, rejections: RejectionLog, sampler: Sampler, partitions: int, pace: Pace
    ) -> None:
        self._directory = directory
        self._events = events
        self._rejections = rejections
        self._sampler = sampler
        self._partitions = partitions
        self.pace = pace
        self.tally = Tally()

    @property
    def sources(self) -> SourceSnapshot:
        """The newest known sources."""
        return self._directory.snapshot

    def authenticate(self, write_key: str | None) -> Source:
        """The source of a write key; raises ``Unauthenticated`` or ``PermissionDenied``."""
        return self._directory.snapshot.authenticate(write_key or "")

    async def collect(self, source: Source, submission: Submission) -> Intake:
        """Applies the rules and returns when what passes is durable, and what does not if nobody is told about single items.

        Raises:
            Unavailable: nothing of the request is promised.
        """
        intake, stored = self.hand_over(source, submission)
        await stored
        self.tally.stored(intake, submission.protocol)
        return intake

    def hand_over(self, source: Source, submission: Submission) -> tuple[Intake, asyncio.Future[Any]]:
        """The first half of ``collect``, which runs at once, so that calls keep their order.

        Returns:
            What the request came to, and what is done when that is durable; fails with ``Unavailable``. The caller tallies.

        Raises:
            Unavailable: nothing of the request is promised.
        """
        received_us = time.time_ns() // 1_000
        handling = source.protection.ip_handling
        # What is taken as its client serialized it is of a source that keeps addresses: its door sees to that.
        if handling != "keep" and not isinstance(submission.items, EncodedEvents):
            for item in submission.items:
                if isinstance(item, ClientEvent):
                    hide_addresses(handling, item)
        arrival = Arrival(
            source,
            received_us,
            submission.sent_us,
            kept_address(handling, submission.client_ip),
            submission.user_agent,
            self._partitions,
            new_id,
            submission.signals,
        )
        traced = self._sampler.pick(len(submission.items), submission.traceparent)
        if not traced:
            intake = admit(submission.items, arrival, {})
            return intake, self._store(intake, submission, arrival)
        spans = CollectSpans(traced, submission.traceparent, received_us)
        try:
            intake = admit(submission.items, arrival, spans.traceparents)
            spans.describe(intake.message_ids)
            stored = self._store(intake, submission, arrival)
        except BaseException:
            spans.end(failed=True)
            raise
        stored.add_done_callback(lambda outcome: spans.end(failed=outcome.cancelled() or outcome.exception() is not None))
        return intake, stored

    def _store(self, intake: Intake, submission: Submission, arrival: Arrival) -> asyncio.Future[Any]:
        stored = self._events.store(intake.frames, intake.links)
        if not intake.refusals or submission.payloads is None:
            return stored
        source, payloads = arrival.source, submission.payloads()
        if (handling := source.protection.ip_handling) != "keep":
            payloads = [hidden_in_payload(handling, payload) for payload in payloads]
        refused = rejected_events(intake, payloads, source, arrival.received_us, VERSION, new_id)
        return asyncio.gather(stored, self._rejections.reject(source.workspace_id, refused))


class Sources:
    """Administers sources. What it changes is known here at once, elsewhere within the refresh time."""

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

    async def create(self, source: Source, write_keys: Sequence[str]) -> tuple[Source, str]:
        """Makes a source with a fresh key beside those given; returns both.

        Raises:
            InvalidArgument: a field breaks its rule.
            AlreadyExists: there is such a source, or another one has one of the keys.
        """
        if (fault := violations(source, write_keys)) is not None:
            raise fault
        write_key = _new_key()
        made = await self._store.create(source.with_key(hash_of(write_key)))
        await self._directory.refresh()
        return made, write_key

    async def get(self, workspace_id: str, source_id: str) -> Source:
        """The source as the database has it; raises ``NotFound``."""
        return await self._store.change(workspace_id, source_id, lambda source: source)

    async def add_key(self, workspace_id: str, source_id: str) -> tuple[Source, str]:
        """A fresh key beside those that the source has; raises ``NotFound``."""
        write_key = _new_key()
        return await self._changed(workspace_id, source_id, lambda source: source.with_key(hash_of(write_key))), write_key

    async def rotate_keys(self, workspace_id: str, source_id: str, grace_seconds: float | None) -> tuple[Source, str]:
        """A fresh key; all others end after the grace period (``None``: a day). Raises ``NotFound``."""
        grace = _DAY_SECONDS if grace_seconds is None else grace_seconds
        if not 0.0 <= grace <= _MAX_GRACE_DAYS * _DAY_SECONDS:
            wrong = ("grace_period", f"0 to {_MAX_GRACE_DAYS} days")
            raise InvalidArgument("the grace period is out of bounds", field_violations=[wrong])
        write_key, expire_us = _new_key(), time.time_ns() // 1_000 + int(grace * 1e6)
        rotated = await self._changed(workspace_id, source_id, lambda source: source.rotated(hash_of(write_key), expire_us))
        return rotated, write_key

    async def revoke_key(self, workspace_id: str, source_id: str, *, write_key: str, fingerprint: str) -> Source:
        """Ends a key, given itself or by its fingerprint. Raises ``NotFound``."""
        wanted = fingerprint_of(hash_of(write_key)) if write_key else fingerprint.lower()
        return await self._changed(workspace_id, source_id, lambda source: source.without_key(wanted))

    async def switch(self, workspace_id: str, source_id: str, *, disabled: bool) -> Source:
        """Switches a source off or on. Raises ``NotFound``."""
        return await self._changed(workspace_id, source_id, lambda source: replace(source, disabled=disabled))

    async def _changed(self, workspace_id: str, source_id: str, decide: Callable[[Source], Source]) -> Source:
        changed = await self._store.change(workspace_id, source_id, decide)
        await self._directory.refresh()
        return changed

    async def page(self, workspace_id: str, after: str, size: int) -> tuple[Sequence[Source], str]:
        """At most ``size`` sources (0: 100) above ``after``, and where the next page starts; empty on the last."""
        limit = min(size or _DEFAULT_PAGE, _MAX_PAGE)
        found = await self._store.page(workspace_id, after, limit + 1)
        shown = found[:limit]
        return shown, shown[-1].source_id if len(found) > limit else ""


def _new_key() -> str:
    return secrets.token_urlsafe(_KEY_BYTES)


def new_id() -> str:
    """A fresh UUIDv7 as text."""
    return str(ids.uuid7())
