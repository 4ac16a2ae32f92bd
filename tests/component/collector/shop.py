"""One page of one SDK in a browser, and what a collector has of it."""

import json
from typing import Any
from urllib.parse import urlsplit

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess
from cdi_testing import eventually

from .chromium import Asked, Browser, Visit
from .conftest import WRITE_KEY, Stored
from .golden import readable

SIGNALS = event_pb2.ClientSignals(do_not_track=True, global_privacy_control=True, bot=True)
SITE = "https://site"
"""Stands for the origin of the page."""

VISITOR = "visitor"
"""Stands for the anonymous id of the page view."""

_SAID = ("type", "name", "category", "user_id", "anonymous_id", "group_id", "previous_id", "schema_uri", "properties", "traits")
_CALLS = ["Home", "page", "identify", "add", "order", "Order Completed", "group", "alias", "Left", "$pageleave"]


class Shop:
    """One page of one SDK, and what a collector has of it."""

    def __init__(self, chromium: Browser, collector: ServiceProcess, stored: Stored) -> None:
        self._browser = chromium
        self._stored = stored
        self._collector = collector.addresses["http"]
        self._site = self._door = ""

    def open(self, page: str, key: str = WRITE_KEY, *, elsewhere: bool = False, secure: bool = False, **options: Any) -> None:
        """Loads a page, whose SDK gets these options."""
        told = {"key": key, "options": json.dumps(options)}
        self._site, self._door = self._browser.open(page, self._collector, elsewhere=elsewhere, secure=secure, **told)

    async def stored(self, count: int) -> list[Event]:
        """All events, once there are so many."""

        async def there() -> bool:
            return len(await self._stored.collected()) >= count

        await eventually(there)
        return await self._stored.collected()

    async def left(self, count: int, *, refused: int = 0) -> tuple[list[Event], list[Asked]]:
        """Closes the page and waits for so many events of it; what it has asked the collector.

        It asked nobody else but its own site, and was refused so often.
        """
        visit = self._browser.leave()
        events = await self.stored(count)
        assert await self._stored.rejected() == []
        assert (visit.failures, len(visit.errors)) == ([], refused), visit
        assert {urlsplit(url).netloc for _, url, _ in visit.requests} <= {self._site, self._door}
        assert len({event.message_id for event in events}) == len(events) == count
        for event in events:
            assert event.signals == SIGNALS
            assert "HeadlessChrome" in event.user_agent
            assert json.loads(event.context)["page"]["url"].startswith(f"http://{self._site}/")
            assert event.original_time.ToMicroseconds() <= event.sent_time.ToMicroseconds()
            assert abs(event.received_time.ToMicroseconds() - event.sent_time.ToMicroseconds()) < 60_000_000
        return events, visit.to(self._door)

    async def shut_out(self) -> Visit:
        """Closes the page, nothing of which was stored."""
        visit = self._browser.leave()
        assert (await self._stored.collected(), await self._stored.rejected()) == ([], [])
        return visit

    def said(self, events: list[Event]) -> list[dict[str, Any]]:
        """What the calls said, each by its kind and name, in the order of the pages; told with ``VISITOR`` and ``SITE``."""
        visitor = next(event.anonymous_id for event in events if event.type == event_pb2.EVENT_TYPE_PAGE)
        told = [_said(event, f"http://{self._site}") for event in events]
        for event in told:
            if event.get("anonymous_id") == visitor:
                event["anonymous_id"] = VISITOR
        return sorted(told, key=lambda event: (_CALLS.index(event.get("name") or event["type"]), str(event.get("traits"))))


def paths(asked: list[Asked]) -> dict[str, set[str]]:
    """What was asked of the collector, by method."""
    found: dict[str, set[str]] = {}
    for method, path, _ in asked:
        found.setdefault(method, set()).add(path)
    return found


def _said(event: Event, origin: str) -> dict[str, Any]:
    found = readable(event)
    found["type"] = found["type"].removeprefix("EVENT_TYPE_").lower()
    if "properties" in found:
        # PostHog's own are looked at where they are expected.
        own = [name for name in found["properties"] if name.startswith("$") or name == "distinct_id"]
        found["properties"] = {name: value for name, value in found["properties"].items() if name not in own}
    said: dict[str, Any] = json.loads(json.dumps({name: found[name] for name in _SAID if name in found}).replace(origin, SITE))
    return said
