"""One destination in operation: its own HTTP session, reader, retry loop and breaker."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from cdi.event.v1.event_pb2 import EventBatch
from cdi_kernel.topology import StreamName, destination_reader
from cdi_router.application.courier import Courier
from cdi_router.application.live import LiveDelivery
from cdi_router.application.needs import needing
from cdi_router.application.target import Target
from cdi_router.application.waiting import WaitingDelivery
from cdi_router.consumer import Consumer, hold
from cdi_router.convert import destination_of
from cdi_router.destinations.registry import KINDS
from cdi_router.domain.breaker import Breaker
from cdi_router.domain.destination import Destination
from cdi_router.domain.filter import Filter
from cdi_router.metrics import Observer
from cdi_router.ports import Consent, DeliveryStore, Endpoint
from cdi_router.retrier import Retrier
from cdi_router.supervisor import Wanted
from cdi_runtime.bus import Bus, ReaderSpec, reading
from cdi_runtime.service import ServiceContext


class SystemClock:
    """The computer's time and chance."""

    def now(self) -> datetime:
        """See ``Clock``."""
        return datetime.now(UTC)

    def chance(self) -> float:
        """See ``Clock``."""
        return random.random()


@dataclass(frozen=True, slots=True)
class Operator:
    """Puts destinations into operation.

    Attributes:
        context: the process.
        bus: to read from.
        partitions: of the installation.
        store: of deliveries.
        consent: asked before every delivery.
        environment: what ``env:NAME`` refers to.
    """

    context: ServiceContext
    bus: Bus
    partitions: int
    store: DeliveryStore
    consent: Consent
    environment: Mapping[str, str]

    @asynccontextmanager
    async def operate(self, wanted: Wanted) -> AsyncIterator[None]:
        """Delivers while the block runs; leaving it finishes what is in hand.

        Raises:
            Fault: it cannot start: a missing secret, NATS away.
        """
        stored = wanted.stored
        destination = needing(destination_of(stored.document), wanted.needed or ())
        spec = self._spec(destination)
        if not destination.enabled or wanted.needed is None:
            # Its place in the stream begins now, also when it was never in operation.
            async with reading(self.bus, spec, hold, self.context):
                pass
            yield
            return
        kind = KINDS[destination.kind]
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(kind.open(destination, self.environment))
            target = self._target(stored.destination_id, destination, endpoint)
            observer = Observer(destination.name)
            consumer = Consumer(LiveDelivery(target, self.store, self.consent), observer)
            reader = await stack.enter_async_context(reading(self.bus, spec, consumer.handle, self.context))
            check = f"destination-{stored.destination_id}"
            # A destination that is down is its own trouble, not that of this replica.
            self.context.readiness.add(check, lambda: None if target.breaker.down else reader.ready())
            stack.callback(self.context.readiness.remove, check)
            retrier = Retrier(WaitingDelivery(target, self.store, self.consent), lambda: reader.owned, observer)
            await stack.enter_async_context(self.context.background(retrier.run(), f"{check}-retries"))
            stack.push_async_callback(retrier.finish)
            yield

    def _spec(self, destination: Destination) -> ReaderSpec[EventBatch]:
        return ReaderSpec(
            service=self.context.name,
            reader=destination_reader(destination.workspace_id, destination.name),
            stream=StreamName.ENRICHED,
            decode=EventBatch.FromString,
            partitions=self.partitions,
            # A partition that waits for its destination must not hold another one.
            lanes=self.partitions,
            start="new",
        )

    def _target(self, destination_id: int, destination: Destination, endpoint: Endpoint) -> Target:
        breaker = Breaker(destination.retry)
        return Target(destination_id, destination, Filter(destination), Courier(endpoint), breaker, SystemClock())
