"""The load: a shop's traffic, the same bytes on every run, and a client that sends it cheaply.

The mix: page views and tracks of anonymous and known visitors, an identify per person, 700 bytes of JSON per event on average, twelve user
agents, IPv4 addresses of many countries, campaigns on a third of the pages, consent on every event.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

WRITE_KEY: Final = "bench-write-key"
EVENTS_PER_PERSON: Final = 10

_BEGIN: Final = datetime(2026, 11, 21, 10, tzinfo=UTC)
_PER_SECOND: Final = 8_000
_AGENTS: Final = tuple(
    f"Mozilla/5.0 ({system}) {engine}"
    for system in (
        "Windows NT 10.0; Win64; x64",
        "Macintosh; Intel Mac OS X 10_15_7",
        "X11; Linux x86_64",
        "iPhone; CPU iPhone OS 17_5 like Mac OS X",
    )
    for engine in (
        "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
        "Gecko/20100101 Firefox/128.0",
    )
)
_PRODUCTS: Final[tuple[dict[str, Any], ...]] = tuple(
    {"sku": f"CD-{n:04d}", "name": f"Album {n}", "price": 8.0 + n % 17} for n in range(200)
)


def events(count: int, *, seed: int = 1, first: int = 0) -> Iterator[dict[str, Any]]:
    """``count`` events in the form of Segment's HTTP API.

    Args:
        count: how many.
        seed: the same seed gives the same events.
        first: number of the first one; message ids and people follow from it.
    """
    chance = random.Random(seed)
    people = max(count // EVENTS_PER_PERSON, 1)
    for number in range(first, first + count):
        yield _event(number, chance.randrange(people) + first // EVENTS_PER_PERSON, chance)


def _event(number: int, person: int, chance: random.Random) -> dict[str, Any]:
    known = person % 3 != 0
    event: dict[str, Any] = {
        "messageId": f"bench-{number:09d}",
        "anonymousId": f"anon-{person:08d}",
        "userId": f"user-{person:08d}" if known else None,
        "timestamp": _moment(number),
        "integrations": {},
        "context": {
            "ip": f"{1 + person * 7 % 222}.{person * 13 % 256}.{person * 17 % 256}.{1 + person % 254}",
            "userAgent": _AGENTS[person % len(_AGENTS)],
            "locale": "en-GB",
            "library": {"name": "analytics-python", "version": "2.4.0"},
            "consent": {"categoryPreferences": {"analytics": True, "advertising": person % 5 != 0}},
        },
    }
    kind = chance.randrange(10)
    if kind < 4:
        path = f"/albums/{chance.randrange(500)}"
        search = f"?utm_source=newsletter&utm_medium=email&utm_campaign=week{person % 50}" if number % 3 == 0 else ""
        url = f"https://shop.example.com{path}{search}"
        page = {"url": url, "path": path, "search": search, "title": "Album", "referrer": "https://www.google.com/"}
        event["context"]["page"] = page
        return event | {"type": "page", "name": "Album", "properties": page}
    if kind == 9 and known:
        traits = {
            "email": f"p{person}@example.com",
            "name": f"Person {person}",
            "plan": ("free", "pro")[person % 2],
            "age": 20 + person % 60,
        }
        return event | {"type": "identify", "traits": traits}
    items = [_PRODUCTS[chance.randrange(200)] | {"quantity": 1 + chance.randrange(3)} for _ in range(1 + chance.randrange(3))]
    if kind < 7:
        return event | {"type": "track", "event": "Product Added", "properties": {**items[0], "cart_id": f"c{person}", "position": kind}}
    total = round(sum(item["price"] * item["quantity"] for item in items), 2)
    order = {"order_id": f"o{number}", "total": total, "revenue": total, "currency": "EUR", "products": items, "coupon": None}
    return event | {"type": "track", "event": "Order Completed", "properties": order}


def _moment(number: int) -> str:
    """When an event happened, by the client's clock: as many a second as the suite is to take."""
    return (_BEGIN + timedelta(seconds=number / _PER_SECOND)).isoformat(timespec="milliseconds")


def bodies(count: int, batch: int = 100, *, first: int = 0, seed: int = 1) -> list[bytes]:
    """HTTP bodies of batches of ``batch`` events each."""
    everything = list(events(count, first=first, seed=seed))
    return [orjson.dumps({"batch": everything[at : at + batch], "sentAt": _moment(first + at + batch)}) for at in range(0, count, batch)]


@dataclass(slots=True)
class Sent:
    """What a run of the load generator saw.

    Attributes:
        started: ``time.time()`` at the first byte.
        finished: ``time.time()`` at the last answer.
        seconds_per_request: latency of every request, in order of answering.
        refused: answers other than 200, by status.
    """

    started: float = 0.0
    finished: float = 0.0
    seconds_per_request: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)


async def send(
    url: str, payloads: Sequence[bytes], *, connections: int = 8, rate: float | None = None, path: str = "/v1/batch", key: str = WRITE_KEY
) -> Sent:
    """Sends every body once over keep-alive connections, and again until it is answered 200.

    Args:
        url: base URL of the collector.
        payloads: bodies.
        connections: how many, each with one request under way.
        rate: requests per second over all connections; as fast as possible when omitted.
        path: of every request.
        key: the write key.
    """
    where = urlsplit(url)
    assert where.hostname
    authorization = base64.b64encode(f"{key}:".encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\nAuthorization: Basic {authorization}\r\n"
        "Content-Length: "
    ).encode()
    sent = Sent(started=time.time())
    position = iter(range(len(payloads)))
    begin = time.monotonic()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 20)
        for index in position:
            if rate is not None:
                await asyncio.sleep(max(0.0, begin + index / rate - time.monotonic()))
            asked = time.monotonic()
            while True:
                writer.write(head + str(len(payloads[index])).encode() + b"\r\n\r\n" + payloads[index])
                status = await _answer(reader)
                if status == 200:
                    break
                sent.refused[status] = sent.refused.get(status, 0) + 1
                await asyncio.sleep(0.2)
            sent.seconds_per_request.append(time.monotonic() - asked)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    sent.finished = time.time()
    return sent


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(length)
    return int(head[9:12])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie; 0 without values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
