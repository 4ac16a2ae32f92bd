"""Real SDKs against a running collector: every call they have, and what they do when they are refused at first.

Those from npm are installed by the test run (``npm.py``).
"""

import asyncio
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rudderstack.analytics.client import Client as RudderStack
from segment.analytics.client import Client as Segment

from cdi.event.v1 import event_pb2
from cdi.event.v1.event_pb2 import Event
from cdi_cli.embedded import ServiceProcess

from .conftest import WRITE_KEY, Stored
from .npm import npm_packages
from .unreliable import LOST, unreliable

NODE = Path(__file__).parent / "node"
SIX = {"m-identify", "m-track", "m-page", "m-screen", "m-group", "m-alias"}
FAILURES = {"429": [429], "503": [503], "429-503": [429, 503], "answer-lost": [LOST]}


@pytest.fixture(scope="session")
def npm() -> Path:
    """Where the SDKs of ``node/package.json`` are installed."""
    return npm_packages(NODE, "node")


async def send(npm: Path, sdk: str, url: str) -> None:
    """Runs all calls of an SDK to the end of its process."""
    environment = os.environ | {"NODE_PATH": str(npm)}
    command = ["node", str(NODE / "send.cjs"), sdk, url]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()[-2_000:]


def python_calls(client: Any) -> None:
    """Every call of Segment's client for Python and of RudderStack's, which has the same ones."""
    client.identify("u1", {"email": "a@b.co"}, message_id="m-identify")
    client.track("u1", "Order Completed", {"total": 19.95}, anonymous_id="a1", message_id="m-track")
    client.page("u1", "Docs", "Home", {"url": "https://shop.example/"}, message_id="m-page")
    client.screen("u1", "Main", "Cart", message_id="m-screen")
    client.group("u1", "g1", {"plan": "pro"}, message_id="m-group")
    client.alias("u0", "u1", message_id="m-alias")


def check_six(events: list[Event], *, library: str, category: bool = False) -> None:
    """The events of the six calls, each once and with all that was said."""
    by_id = {event.message_id: event for event in events}
    assert {event_id: (event.type, event.name) for event_id, event in by_id.items()} == {
        "m-identify": (event_pb2.EVENT_TYPE_IDENTIFY, ""),
        "m-track": (event_pb2.EVENT_TYPE_TRACK, "Order Completed"),
        "m-page": (event_pb2.EVENT_TYPE_PAGE, "Home"),
        "m-screen": (event_pb2.EVENT_TYPE_SCREEN, "Cart"),
        "m-group": (event_pb2.EVENT_TYPE_GROUP, ""),
        "m-alias": (event_pb2.EVENT_TYPE_ALIAS, ""),
    }
    assert len(events) == len(by_id)
    assert json.loads(by_id["m-identify"].traits) == {"email": "a@b.co"}
    assert json.loads(by_id["m-track"].properties) == {"total": 19.95}
    assert by_id["m-track"].anonymous_id == "a1"
    assert json.loads(by_id["m-page"].properties)["url"] == "https://shop.example/"
    assert (by_id["m-page"].category, by_id["m-screen"].category) == (("Docs", "Main") if category else ("", ""))
    assert (by_id["m-group"].group_id, json.loads(by_id["m-group"].traits)) == ("g1", {"plan": "pro"})
    assert (by_id["m-alias"].previous_id, by_id["m-alias"].user_id) == ("u0", "u1")
    for event in events:
        assert (event.source_id, event.user_id) == ("web", "u1")
        assert json.loads(event.context)["library"]["name"] == library


@pytest.mark.parametrize("zipped", [True, False])
async def test_every_call_of_rudderstack_for_python(collector: ServiceProcess, stored: Stored, zipped: bool) -> None:
    client = RudderStack(WRITE_KEY, host=f"http://{collector.addresses['http']}", gzip=zipped, max_retries=0)
    python_calls(client)
    client.shutdown()
    check_six(await stored.collected(), library="analytics-python", category=True)


async def test_every_call_of_segment_for_node(collector: ServiceProcess, stored: Stored, npm: Path) -> None:
    await send(npm, "segment", f"http://{collector.addresses['http']}")
    check_six(await stored.collected(), library="@segment/analytics-node", category=True)


async def test_every_call_of_rudderstack_for_node(collector: ServiceProcess, stored: Stored, npm: Path) -> None:
    await send(npm, "rudderstack", f"http://{collector.addresses['http']}")
    check_six(await stored.collected(), library="analytics-node")


async def test_every_call_of_snowplow_for_node(collector: ServiceProcess, stored: Stored, npm: Path) -> None:
    await send(npm, "snowplow", f"http://{collector.addresses['http']}")
    events = await stored.collected()
    assert len({event.message_id for event in events}) == len(events)
    for person in ("u-base64", "u-plain"):
        found = [event for event in events if event.user_id == person]
        assert Counter(event.type for event in found) == {
            event_pb2.EVENT_TYPE_PAGE: 1,
            # The order and the screen view.
            event_pb2.EVENT_TYPE_SELF_DESCRIBING: 2,
            event_pb2.EVENT_TYPE_TRACK: 4,
        }
        order = next(event for event in found if event.schema_uri == "iglu:com.acme/order/jsonschema/1-0-0")
        assert json.loads(order.properties) == {"revenue": 19.95, "note": "ÿ?>ü"}
        entity = {"schema": "iglu:com.acme/ctx/jsonschema/1-0-0", "data": {"k": 1}}
        assert json.loads(order.context)["snowplow"]["entities"] == [entity]


@pytest.mark.parametrize("failures", FAILURES.values(), ids=FAILURES)
async def test_segment_for_python_sends_again_until_each_event_is_there(
    collector: ServiceProcess, stored: Stored, failures: list[int]
) -> None:
    with unreliable(collector.addresses["http"], failures) as proxy:
        client = Segment(WRITE_KEY, host=proxy.url, max_retries=5)
        python_calls(client)
        await asyncio.to_thread(client.shutdown)
    check_once(proxy.answered, failures, await stored.collected())


@pytest.mark.parametrize("failures", FAILURES.values(), ids=FAILURES)
async def test_segment_for_node_sends_again_until_each_event_is_there(
    collector: ServiceProcess, stored: Stored, npm: Path, failures: list[int]
) -> None:
    with unreliable(collector.addresses["http"], failures) as proxy:
        await send(npm, "segment", proxy.url)
    check_once(proxy.answered, failures, await stored.collected())


def check_once(answered: list[int], failures: list[int], events: list[Event]) -> None:
    """Every event is there under its one message id, which is what enrichment drops duplicates by."""
    assert answered[: len(failures)] == [failure or 503 for failure in failures]
    assert answered[-1] == 200
    assert {event.message_id for event in events} == SIX
    if LOST not in failures:
        assert len(events) == len(SIX)
    else:
        assert len(events) > len(SIX)
