"""A collector with one source, a raw HTTP client, and readers of what it stored."""

import base64
import gzip
import hashlib
import http.client
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from cdi.collector.v1.collector_service_pb2 import ApplySourceRequest
from cdi.collector.v1.collector_service_pb2_grpc import SourcesServiceStub
from cdi.collector.v1.source_pb2 import Source
from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.event.v1.rejected_event_pb2 import RejectedBatch, RejectedEvent
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Message, connect
from cdi_testing.plugin import MigratedDatabases

WRITE_KEY = "test-key"
ADMIN_TOKEN = "test-admin"
ADMIN = (("authorization", f"Bearer {ADMIN_TOKEN}"),)
ADMITTING = {"CDI_ADMIN_TOKEN_HASHES": hashlib.sha256(ADMIN_TOKEN.encode()).hexdigest()}
"""The setting of a collector that takes ``ADMIN``."""

HOOK_SECRET = "whsec_test"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode()}


@dataclass(frozen=True)
class Answer:
    """A body in JSON is decoded."""

    status: int
    headers: Mapping[str, str]
    body: Any


def post(collector: ServiceProcess, path: str, body: Any, headers: Mapping[str, str] = BASIC, *, zipped: bool = False) -> Answer:
    """One request on a connection of its own; a body that is not bytes is sent as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(collector, "POST", path, gzip.compress(payload) if zipped else payload, headers)


def request(collector: ServiceProcess, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    connection = http.client.HTTPConnection(collector.addresses["http"], timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        found, content = {k.lower(): v for k, v in response.getheaders()}, response.read()
        is_json = found.get("content-type") == "application/json" and content
        return Answer(response.status, found, json.loads(content) if is_json else content)
    finally:
        connection.close()


def apply_source(collector: ServiceProcess, **fields: Any) -> None:
    with grpc.insecure_channel(collector.grpc) as channel:
        SourcesServiceStub(channel).ApplySource(ApplySourceRequest(source=Source(**fields)), metadata=ADMIN)


class Stored:
    """What the collector has stored since the test began; without ``begin``, ever."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._before = {StreamName.COLLECTED: 0, StreamName.REJECTED: 0}

    async def begin(self) -> None:
        for stream in self._before:
            self._before[stream] = await self._count(stream)

    async def messages(self, stream: StreamName) -> list[Message[bytes]]:
        """Oldest first."""
        return [await self._bus.message(stream, n) for n in range(self._before[stream] + 1, await self._count(stream) + 1)]

    async def collected(self) -> list[Event]:
        return [event for message in await self.messages(StreamName.COLLECTED) for event in EventBatch.FromString(message.payload).events]

    async def rejected(self) -> list[RejectedEvent]:
        return [event for message in await self.messages(StreamName.REJECTED) for event in RejectedBatch.FromString(message.payload).events]

    async def _count(self, stream: StreamName) -> int:
        return int((await self._bus.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])


@pytest.fixture(scope="module")
def module_database_url(migrated_database: MigratedDatabases) -> str:
    """URL of a migrated database that only this module uses."""
    return migrated_database("collector")


@pytest.fixture(scope="module")
def collector(module_nats: NatsServer, module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """With one source, ``acme/web``; its timeouts are short. A test that ends it starts it again."""
    environment = {
        "CDI_NATS_URL": module_nats.url,
        "CDI_DATABASE_URL": module_database_url,
        "CDI_BODY_SECONDS": "1",
        "CDI_HEAD_SECONDS": "1",
        "CDI_SNOWPLOW_POST_PATHS": "com.acme/track",
        "CDI_SNOWPLOW_REDIRECT_HOSTS": "shop.example",
        **ADMITTING,
        "HOOK_SECRET": HOOK_SECRET,
    }
    with ServiceProcess("collector", environment, tmp_path_factory.mktemp("collector")) as process:
        apply_source(process, workspace_id="acme", source_id="web", write_keys=[WRITE_KEY])
        yield process


@pytest.fixture
async def stored(module_nats: NatsServer, collector: ServiceProcess) -> AsyncIterator[Stored]:
    async with connect(module_nats.url, "test") as bus:
        found = Stored(bus)
        await found.begin()
        yield found
