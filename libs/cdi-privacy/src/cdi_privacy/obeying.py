"""PRIVACY in: orders for this service, done in batches, reported, acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from cdi.consent.v1.privacy_pb2 import PRIVACY_VERB_ACCESS, PrivacyOrder
from cdi_kernel.faults import NotFound
from cdi_kernel.topology import StreamName
from cdi_privacy.clients import PrivacyClient
from cdi_privacy.keeper import Keeper, Step, done, erases
from cdi_runtime.bus import Bus, Done, Message, Outcome, Reader, ReaderSpec, reading
from cdi_runtime.bus.reader import Host
from cdi_runtime.telemetry import logger

MAX_ORDERS: Final = 1_000
"""Orders that are done together: one pass over a store, however many people. The bus fetches no more than 128 messages ahead."""

LINGER_SECONDS: Final = 0.2
"""How long an order may wait for others of its call."""

_log = logger(__name__)
_Key = tuple[str, int]


class Obedience:
    """Does what orders ask for. Suppression is consent's own: every batch of events asks it.

    What was done and could not be reported is remembered: the orders come again, and their stores would find nothing any more. A process
    that ends in between reports what it finds then.

    Args:
        service: whose orders.
        keeper: its stores.
        client: where it reports.
    """

    def __init__(self, service: str, keeper: Keeper, client: PrivacyClient) -> None:
        self._service = service
        self._keeper = keeper
        self._client = client
        self._unreported: dict[_Key, Sequence[Step]] = {}

    async def handle(self, messages: Sequence[Message[PrivacyOrder]]) -> Sequence[Outcome]:
        """One outcome per message; all are done, or a retryable ``Fault`` brings all again."""
        orders = [message.body for message in messages if self._service in message.body.services]
        await self._erase([order for order in orders if erases(order)])
        for order in orders:
            if order.verb == PRIVACY_VERB_ACCESS:
                await self._access(order)
        return [Done()] * len(messages)

    async def _erase(self, orders: Sequence[PrivacyOrder]) -> None:
        new = [order for order in orders if _key(order) not in self._unreported]
        if new:
            for order, steps in zip(new, await self._keeper.erase(new), strict=True):
                self._unreported[_key(order)] = steps
            _log.info("privacy.erased", orders=len(new))
        # Side by side: consent stores what comes meanwhile in one transaction, one after the other each would wait for its own.
        reports = [self._report(order, self._unreported.get(_key(order), ())) for order in orders]
        results = await asyncio.gather(*reports, return_exceptions=True)
        for failed in filter(None, results):
            raise failed
        for order in orders:
            self._unreported.pop(_key(order), None)

    async def _access(self, order: PrivacyOrder) -> None:
        try:
            sent = await self._client.send(order, self._keeper.access(order))
        except NotFound:
            _log.warning("privacy.unknown_request", attempt=order.attempt)
            return
        await self._report(order, [done(name, rows) for name, rows in sent.items()])

    async def _report(self, order: PrivacyOrder, steps: Sequence[Step]) -> None:
        """A request that consent does not know any more needs no report."""
        try:
            await self._client.report(order, steps)
        except NotFound:
            _log.warning("privacy.unknown_request", attempt=order.attempt)


@asynccontextmanager
async def obeying(bus: Bus, service: str, keeper: Keeper, client: PrivacyClient, host: Host) -> AsyncIterator[Reader[PrivacyOrder]]:
    """Obeys while the block runs; leaving it finishes and reports what is in hand.

    Args:
        bus: the connection.
        service: whose orders; also the durable name of its reader.
        keeper: its stores.
        client: where it reports.
        host: the process.
    """
    obedience = Obedience(service, keeper, client)
    spec = ReaderSpec(
        service, service, StreamName.PRIVACY, PrivacyOrder.FromString, None, max_events=MAX_ORDERS, linger_seconds=LINGER_SECONDS
    )
    async with reading(bus, spec, obedience.handle, host) as reader:
        yield reader


def _key(order: PrivacyOrder) -> _Key:
    return order.request_id, order.attempt
