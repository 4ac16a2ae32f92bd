"""The clients in examples/ against a running collector, and a client that sends without reading the answers."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil

from cdi.collector.v1.collector_service_pb2 import EventInput, IngestEventsRequest, StreamEventsRequest
from cdi.collector.v1.collector_service_pb2_grpc import CollectorServiceStub
from cdi.event.v1 import event_pb2
from cdi_cli.embedded import NatsServer, ServiceProcess
from cdi_testing import eventually

from .conftest import WRITE_KEY, Stored
from .npm import npm_packages

EXAMPLES = Path(__file__).parents[3] / "examples"
_EXPECTED = ["IngestEvents: 10 stored", "StreamEvents: 100 stored"]


async def test_the_python_client(collector: ServiceProcess, stored: Stored) -> None:
    await sends_its_events([sys.executable, str(EXAMPLES / "grpc_client.py")], collector, stored)


async def test_the_python_client_sends_again(collector: ServiceProcess, module_nats: NatsServer, stored: Stored) -> None:
    """It starts while NATS is away, and ends when it is back with every event stored."""
    module_nats.stop()
    command = [sys.executable, "-u", str(EXAMPLES / "grpc_client.py"), collector.grpc, WRITE_KEY]
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert (await asyncio.wait_for(client.stdout.readline(), 60)).startswith(b"not now: ")
    finally:
        module_nats.start()
    output, _ = await asyncio.wait_for(client.communicate(), 60)
    assert client.returncode == 0
    assert [line for line in output.decode().splitlines() if "stored" in line] == _EXPECTED
    events = await eventually(stored.collected)
    assert len({event.message_id for event in events}) == 110


async def test_the_node_client(collector: ServiceProcess, stored: Stored, tmp_path: Path) -> None:
    packages = npm_packages(EXAMPLES / "node", "node-example")
    project = tmp_path / "examples" / "node"
    project.mkdir(parents=True)
    shutil.copy(EXAMPLES / "node" / "client.mjs", project)
    (project / "node_modules").symlink_to(packages)
    (tmp_path / "protos").symlink_to(EXAMPLES.parent / "protos")
    await sends_its_events(["node", str(project / "client.mjs")], collector, stored)


async def sends_its_events(command: list[str], collector: ServiceProcess, stored: Stored) -> None:
    client = await asyncio.create_subprocess_exec(*command, collector.grpc, WRITE_KEY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(client.communicate(), 60)
    lines = output.decode().splitlines()
    assert client.returncode == 0, output
    assert [line for line in lines if "stored" in line] == _EXPECTED
    # The one event without a person is named with its reason.
    assert [line for line in lines if line.startswith("event 10 (")] != []
    events = await stored.collected()
    assert len({event.message_id for event in events}) == len(events) == 110


BATCHES = 1_500
BATCH_EVENTS = 50


async def test_a_client_that_reads_no_answers_is_slowed_down(collector: ServiceProcess, stored: Stored) -> None:
    """The window of a stream is 16 batches: the collector stops reading, and its memory does not grow with what is sent."""
    event = EventInput(type=event_pb2.EVENT_TYPE_TRACK, name="X", user_id="u", properties_json=b'{"a":"%s"}' % (b"x" * 1_000))
    written = 0
    process = psutil.Process(collector.pid)

    async def requests() -> AsyncIterator[StreamEventsRequest]:
        nonlocal written
        for number in range(BATCHES):
            batch = IngestEventsRequest(write_key=WRITE_KEY, events=[event] * BATCH_EVENTS)
            yield StreamEventsRequest(request_id=number, batch=batch)
            written += 1

    # A client that holds few answers that nobody has asked for; by itself gRPC lets this grow to megabytes.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
    async with grpc.aio.insecure_channel(collector.grpc, options=options) as channel:
        before = process.memory_info().rss
        call = CollectorServiceStub(channel).StreamEvents(requests())
        await eventually(lambda: stands_still(lambda: written))
        # 75 MB wait at the client; here are the window, and what gRPC holds of both directions.
        assert written < BATCHES / 2
        assert process.memory_info().rss - before < 30e6
        answers = [answer.request_id async for answer in call]
    assert answers == list(range(BATCHES))
    assert sum(1 for _ in await stored.collected()) == BATCHES * BATCH_EVENTS


async def stands_still(count: object) -> bool:
    """Whether a count that has begun does not rise for a while."""
    before = count()  # type: ignore[operator]
    for _ in range(50):
        await asyncio.sleep(0.02)
        if count() != before:  # type: ignore[operator]
            return False
    return bool(before)
