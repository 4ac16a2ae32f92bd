"""Webhooks: JSON batches by POST, signed, with a stable idempotency key.

One HTTP session and connection pool per destination. Redirects are not followed: a signed body goes only where the document says.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import aiohttp
import yarl

from cdi.event.v1.event_pb2 import Event
from cdi_router.destinations.base import resolve
from cdi_router.destinations.event_json import event_json
from cdi_router.domain.answer import MAX_ANSWER_BYTES, Answer
from cdi_router.domain.destination import Destination, Webhook
from cdi_router.domain.retry import parse_retry_after

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
SIGNATURE: Final = "CDI-Signature"
_USER_AGENT: Final = "cdi-router"
_MAX_HEADER_BYTES: Final = 16 * 1024


class WebhookEndpoint:
    """The client of one webhook."""

    def __init__(self, session: aiohttp.ClientSession, settings: Webhook, secret: str) -> None:
        self._session = session
        self._settings = settings
        self._secret = secret.encode()

    @property
    def max_batch_events(self) -> int:
        """See ``Endpoint``."""
        return self._settings.max_batch_events

    @property
    def concurrency(self) -> int:
        """See ``Endpoint``."""
        return self._settings.concurrency

    def compose(self, events: Sequence[Event]) -> bytes:
        """``{"events": [...]}``, each as ``event_json`` writes it."""
        return b'{"events":[' + b",".join([event_json(event) for event in events]) + b"]}"

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """See ``Endpoint``."""
        return await self.request("POST", self._settings.url, body, idempotency_key)

    async def request(self, method: str, url: str | yarl.URL, body: bytes, idempotency_key: str) -> Answer:
        """One signed request to any address; see ``Endpoint.send``."""
        headers = {IDEMPOTENCY_KEY: idempotency_key}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, body)
        try:
            async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                return await _answer(response)
        except TimeoutError:
            return Answer(0, failure="timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(0, failure=type(error).__name__)


class WebhookKind:
    """The kind ``webhook``."""

    @asynccontextmanager
    async def open(self, destination: Destination, environment: Mapping[str, str]) -> AsyncIterator[WebhookEndpoint]:
        """See ``Kind``."""
        settings = destination.webhook
        headers = {"Content-Type": "application/json", "User-Agent": _USER_AGENT}
        headers |= {name: resolve(value, environment) for name, value in settings.headers.items()}
        secret = resolve(settings.signing_secret, environment)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        ) as session:
            yield WebhookEndpoint(session, settings, secret)


def signature(secret: bytes, body: bytes) -> str:
    """``sha256=`` and the hexadecimal HMAC-SHA-256 of the body."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    """The status decides, so a body that does not arrive whole changes nothing."""
    try:
        body = await response.content.read(MAX_ANSWER_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError):
        body = b""
    if 200 <= response.status < 300:
        return Answer(response.status)
    asked = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    return Answer(response.status, body.decode("utf-8", "replace"), retry_after=asked)
