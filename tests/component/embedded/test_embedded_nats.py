"""The embedded NATS server: ready when it says so, same port and streams after a restart."""

import json
import urllib.request
from pathlib import Path

import nats
import pytest

from cdi_cli.embedded import NatsServer, ProcessFailed


async def publish(server: NatsServer, payload: bytes) -> int:
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="KEPT", subjects=["kept"])
        return (await jetstream.publish("kept", payload)).seq
    finally:
        await client.close()


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
async def test_restart_keeps_port_and_streams(tmp_path: Path, end: object) -> None:
    with NatsServer(tmp_path) as server:
        port = server.port
        assert await publish(server, b"one") == 1
        assert callable(end)
        end(server)
        assert not server.process.running
        server.start()
        assert server.port == port
        assert await publish(server, b"two") == 2


async def test_second_server_on_the_same_directory_finds_the_streams(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as first:
        await publish(first, b"one")
    with NatsServer(tmp_path, sync_interval="always") as second:
        assert await publish(second, b"two") == 2


def test_monitoring_answers_and_accepts_large_payloads(fresh_nats: NatsServer) -> None:
    with urllib.request.urlopen(f"{fresh_nats.monitoring_url}/varz", timeout=5) as answer:
        assert json.load(answer)["max_payload"] == 8 * 1024 * 1024


def test_taken_port_fails_with_the_log(tmp_path: Path, fresh_nats: NatsServer) -> None:
    with pytest.raises(ProcessFailed, match="address already in use"):
        NatsServer(tmp_path, port=fresh_nats.port).start()
