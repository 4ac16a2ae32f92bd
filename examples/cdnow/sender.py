"""Sending with the unmodified Segment SDK, and what a broken client sends beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

from segment.analytics.client import Client

from cdnow.journey import Step

CLIENTS: Final = 4
"""SDK instances, one thread and one connection each. A person always has the same one: the order of their events is kept."""

QUEUE_EVENTS: Final = 8_000
"""Above it the sender waits: the SDK drops what does not fit into its queue."""

DUPLICATE_ONE_IN: Final = 50
DUPLICATE_AFTER: Final = 700
"""2 % of the events are sent again, so many events later, as a client does that missed an answer."""

INVALID_ONE_IN: Final = 100


class Shop:
    """The shop's tracking.

    Args:
        url: of the collector.
        write_key: of the source.
    """

    def __init__(self, url: str, write_key: str) -> None:
        self.failures: list[str] = []
        self.sent = 0
        self._clients = [
            Client(write_key, host=url, upload_size=100, upload_interval=0.2, max_queue_size=2 * QUEUE_EVENTS, on_error=self._failed)
            for _ in range(CLIENTS)
        ]

    def send(self, steps: Sequence[Step]) -> tuple[int, int]:
        """Send all events, some of them twice, and invalid ones on top.

        Returns:
            Events sent again, and invalid events.
        """
        again = invalid = 0
        for index, step in enumerate(steps):
            self._send(step)
            if index % DUPLICATE_ONE_IN == 0 and index >= DUPLICATE_AFTER:
                self._send(steps[index - DUPLICATE_AFTER])
                again += 1
            if index % INVALID_ONE_IN == 0:
                self._send_invalid(step, invalid)
                invalid += 1
        return again, invalid

    def flush(self) -> None:
        """Return when everything is stored."""
        for client in self._clients:
            client.flush()

    def close(self) -> None:
        """End the SDK's threads."""
        for client in self._clients:
            client.join()

    def _send(self, step: Step) -> None:
        client = self._room(step.customer)
        known = {"context": step.context, "timestamp": step.time, "anonymous_id": step.anonymous_id, "message_id": step.message_id}
        match step.kind:
            case "page":
                client.page(name=step.context["page"]["title"], properties=step.context["page"], **known)
            case "identify":
                client.identify(f"customer-{step.customer}", {"email": f"customer-{step.customer}@mail.example"}, **known)
            case "withdraw":
                client.track(f"customer-{step.customer}", "Consent Changed", {"advertising": False}, **known)
            case "order":
                client.track(f"customer-{step.customer}", "Order Completed", order_properties(step), **known)

    def _send_invalid(self, step: Step, number: int) -> None:
        """Three ways to break the tracking plan. They are events of their own: the totals stay exact."""
        event, properties = BROKEN[number % len(BROKEN)]
        self._room(step.customer).track(
            f"customer-{step.customer}",
            event,
            properties,
            timestamp=step.time,
            anonymous_id=step.anonymous_id,
            message_id=f"cdnow-invalid-{number}",
        )

    def _room(self, customer: str) -> Client:
        """The person's client, once its queue has room."""
        client = self._clients[int(customer) % CLIENTS]
        while client.queue.qsize() >= QUEUE_EVENTS:
            time.sleep(0.01)
        self.sent += 1
        return client

    def _failed(self, error: Exception, batch: Sequence[Any]) -> None:
        self.failures.append(f"{len(batch)} events: {error}")


BROKEN: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("Order Completed", {"order_id": "broken", "revenue": "12.00 dollars", "total": 12.0, "quantity": 1, "currency": "USD"}),
    ("Order Completed", {"order_id": "broken", "revenue": 12.0, "quantity": 1, "currency": "USD"}),
    ("Order Complted", {"order_id": "broken"}),
)


def order_properties(step: Step) -> dict[str, Any]:
    """The properties of an order, as Segment's e-commerce events name them."""
    if step.purchase is None:
        raise ValueError("only orders have properties")
    dollars = float(step.purchase.dollars)
    return {
        "order_id": f"{step.purchase.line}",
        "revenue": dollars,
        "total": dollars,
        "quantity": step.purchase.quantity,
        "currency": "USD",
    }


def nameless(events: int) -> Iterator[dict[str, Any]]:
    """What a broken client sends, which the SDK would refuse to: events of nobody, and of a type that there is not."""
    for number in count():
        if number == events:
            return
        message_id = f"cdnow-nameless-{number}"
        if number % 2:
            yield {"type": "purchase", "userId": "customer-00001", "messageId": message_id}
        else:
            yield {"type": "track", "event": "Order Completed", "messageId": message_id}
