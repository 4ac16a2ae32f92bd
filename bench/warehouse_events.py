"""Events as enrichment publishes them, and the same events as NDJSON for the loader that is compared with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

from cdi.event.v1.event_pb2 import EVENT_TYPE_TRACK, Event, EventBatch, IdentityResult

WORKSPACE: Final = "main"
NAMES: Final = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed", "Product Reviewed")
PEOPLE: Final = 10_000
MESSAGE_EVENTS: Final = 500
"""Events in one message, as the collector's batches are under load."""

_CONTEXT: Final = {
    "library": {"name": "analytics.js", "version": "2.1.0"},
    "page": {"path": "/shop", "title": "Shop"},
    "locale": "de-CH",
    "timezone": "Europe/Zurich",
}


def plain(number: int, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """One of five kinds of events with twelve properties: 40 columns with those that every event has."""
    return NAMES[number % len(NAMES)], {
        "product_id": f"sku-{chance.randrange(5_000)}",
        "name": f"Product {chance.randrange(5_000)}",
        "category": chance.choice(("shoes", "hats", "bags", "coats")),
        "brand": chance.choice(("Alpha", "Beta", "Gamma")),
        "price": round(chance.random() * 300, 2),
        "quantity": chance.randrange(1, 6),
        "in_stock": chance.random() < 0.9,
        "coupon": None if number % 3 else f"C{number % 97}",
        "position": chance.randrange(60),
        "currency": "CHF",
        "shipping": {"method": "post", "days": chance.randrange(1, 5)},
    }


def wide(number: int, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """One of 500 kinds of events, each with four properties of its own: 2,000 columns of clients in all."""
    kind = chance.randrange(500)
    return f"Kind {kind}", {f"property_{kind * 4 + place}": chance.randrange(1_000) for place in range(4)}


MAKERS: Final = {"plain": plain, "wide": wide}


def raw(first: int, count: int, kind: str = "plain") -> Iterator[dict[str, Any]]:
    """Events as an SDK sends them."""
    chance = random.Random(first)
    make = MAKERS[kind]
    for number in range(first, first + count):
        name, properties = make(number, chance)
        person = chance.randrange(PEOPLE)
        yield {
            "messageId": f"m-{number:010}",
            "type": "track",
            "event": name,
            "userId": f"user-{person}",
            "anonymousId": f"device-{person}",
            "properties": properties,
            "context": _CONTEXT,
        }


def message(first: int, now_us: int, kind: str = "plain") -> bytes:
    """A serialized batch of ``MESSAGE_EVENTS`` events, received now."""
    context = json.dumps(_CONTEXT).encode()
    events: list[Event] = []
    for one in raw(first, MESSAGE_EVENTS, kind):
        event = Event(
            workspace_id=WORKSPACE,
            source_id="web",
            message_id=one["messageId"],
            type=EVENT_TYPE_TRACK,
            name=one["event"],
            user_id=one["userId"],
            anonymous_id=one["anonymousId"],
            properties=json.dumps(one["properties"]).encode(),
            context=context,
            identity=IdentityResult(profile_id=f"profile-{one['userId']}"),
        )
        for field in (event.received_time, event.event_time, event.original_time, event.sent_time):
            field.FromMicroseconds(now_us)
        events.append(event)
    return EventBatch(events=events).SerializeToString()
