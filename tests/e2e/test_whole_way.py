"""From the unmodified SDK to the row and the webhook: every call, exact counts, one person."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from segment.analytics import Client

from cdi.consent.v1 import consent_service_pb2, purpose_pb2
from cdi.event.v1 import event_pb2
from cdi.identity.v1 import identity_service_pb2, profile_pb2
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi_cli.peers import Peers, ask
from cdi_cli.suite import Suite
from cdi_kernel.envelope import EVENTS, frame
from cdi_kernel.topology import StreamName, collected, partition_of
from cdi_runtime.bus import Bus, connect
from cdi_runtime.rpc import channel
from cdi_testing import eventually
from cdi_testing.builders import track
from cdi_testing.promises import WITHDRAWAL_KNOWN_SECONDS
from tests.e2e.steps import WORKSPACE, WRITE_KEY, Endpoint, first_arrivals, flush, loaded, rows

KEY = {"Authorization": aiohttp.encode_basic_auth(WRITE_KEY, "")}
YES = {"consent": {"categoryPreferences": {"advertising": True}}}
BROWSER = {
    "ip": "81.2.69.142",
    "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "page": {"url": "https://shop.example.com/a?utm_source=news&gclid=xyz", "referrer": "https://www.google.com/"},
}


async def test_every_call_of_the_sdk_becomes_its_row(
    shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    client, person, user = sdk(), f"{prefix}anon", f"{prefix}user"
    common = {"anonymous_id": person, "context": YES | BROWSER}
    client.page(None, "Docs", "Home", {"url": BROWSER["page"]["url"]}, message_id=f"{prefix}1", **common)
    client.identify(user, {"email": f"{prefix}@example.com", "plan": "pro"}, message_id=f"{prefix}2", **common)
    client.track(user, "Order Completed", {"order_id": "o1", "total": 19.95, "items": [1, 2]}, message_id=f"{prefix}3", **common)
    client.screen(user, "Main", "Cart", {"x": 1}, message_id=f"{prefix}4", **common)
    client.group(user, f"{prefix}acme", {"name": "Acme"}, message_id=f"{prefix}5", **common)
    client.alias(person, user, message_id=f"{prefix}6", context=YES)
    await flush(client)
    for table in ("pages", "identifies", "tracks", "order_completed", "screens", "groups", "aliases"):
        await loaded(shop, table, prefix, 1)

    sql = f"SELECT total, order_id, items, user_id, anonymous_id, event, event_text FROM order_completed WHERE id = '{prefix}3'"
    assert await rows(shop, sql) == [[19.95, "o1", "[1,2]", user, person, "order_completed", "Order Completed"]]
    sql = f"SELECT geo_country, ua_browser, campaign_source, referrer_source FROM pages WHERE id = '{prefix}1'"
    assert await rows(shop, sql) == [["GB", "Firefox", "news", "Google"]]
    assert await rows(shop, f"SELECT email, plan FROM users WHERE id = '{user}'") == [[f"{prefix}@example.com", "pro"]]

    sql = " UNION ".join(
        f"SELECT profile_id FROM {table} WHERE id LIKE '{prefix}%'" for table in ("pages", "identifies", "tracks", "screens")
    )
    profiles = await rows(shop, sql)
    assert len(profiles) == 1, "the anonymous page view and the known order are one person"
    identifier = profile_pb2.Identifier(type="email", value=f"{prefix}@example.com")
    async with channel(suite.grpc("identity")) as to_identity:
        request = identity_service_pb2.GetProfileRequest(workspace_id=WORKSPACE, identifier=identifier)
        profile = (await ask(IdentityServiceStub(to_identity).GetProfile, request)).profile
    assert [profile.profile_id] == profiles[0]
    await eventually(lambda: len(first_arrivals(endpoint, person)) >= 5)
    assert first_arrivals(endpoint, person)[:5] == [f"{prefix}{number}" for number in range(1, 6)]


async def test_what_the_sender_says_of_itself_is_in_the_warehouse(shop: Peers, prefix: str, suite: Suite) -> None:
    crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    senders = [{"Sec-GPC": "1"}, {"DNT": "1", "User-Agent": crawler}, {"DNT": "0"}]
    async with aiohttp.ClientSession(headers=KEY) as session:
        for number, headers in enumerate(senders):
            event = {"event": "Asked", "messageId": f"{prefix}{number}", "anonymousId": f"{prefix}a", "context": {"bot": "none"}}
            async with session.post(f"{suite.http_url}/v1/track", json=event, headers=headers) as answer:
                assert answer.status == 200
    await loaded(shop, "asked", prefix, len(senders))
    columns = "context_do_not_track, context_global_privacy_control, context_bot, ua_bot, context__bot"
    assert await rows(shop, f"SELECT {columns} FROM asked WHERE id LIKE '{prefix}%' ORDER BY id") == [
        [None, True, None, None, "none"],
        [True, None, True, True, "none"],
        [None, None, None, None, "none"],
    ]


async def test_duplicates_invalid_events_and_consent_are_accounted_for(shop: Peers, endpoint: Endpoint, prefix: str, suite: Suite) -> None:
    def order(number: int, person: str, **properties: object) -> dict[str, object]:
        consent = {"consent": {"categoryPreferences": {"advertising": person.endswith("yes")}}}
        return {
            "type": "track",
            "event": "Order Completed",
            "messageId": f"{prefix}{number}",
            "anonymousId": f"{prefix}{person}",
            "properties": {"order_id": str(number), **properties},
            "context": consent,
        }

    good = [order(number, "yes" if number % 2 else "no", total=number) for number in range(10)]
    bad = [order(10, "yes", total="a lot"), {"type": "track", "messageId": f"{prefix}11", "event": "x"}, 7]
    async with aiohttp.ClientSession(headers=KEY) as session:
        for _ in range(3):
            async with session.post(f"{suite.http_url}/v1/batch", json={"batch": [*good, *bad]}) as answer:
                assert (answer.status, await answer.json()) == (200, {"success": True})
    await loaded(shop, "order_completed", prefix, 10)
    await eventually(lambda: len(first_arrivals(endpoint, f"{prefix}yes")) == 5)
    assert not endpoint.arrived[f"{prefix}no"]

    async def reasons() -> dict[object, object]:
        sql = f"SELECT reason, count(*) FROM rejected_events WHERE message_id LIKE '{prefix}%' GROUP BY 1"
        return {str(reason): number for reason, number in await rows(shop, sql)}

    await eventually(lambda: rejected(reasons, {"schema_violation": 1.0, "missing_identity": 3.0}))


async def rejected(reasons: Callable, expected: dict[str, float]) -> bool:
    found = await reasons()
    assert found == expected
    return True


async def test_a_poisonous_message_is_put_aside_and_a_poisonous_event_rejected(shop: Peers, prefix: str, suite: Suite) -> None:
    person = f"{prefix}anon"
    partition = partition_of(WORKSPACE, person, suite.partitions)

    def stored(number: int, **fields: object) -> bytes:
        event = track(
            workspace_id=WORKSPACE,
            source_id="web",
            message_id=f"{prefix}{number}",
            anonymous_id=person,
            name="Poisonous",
            partition=partition,
        )
        event.MergeFrom(event_pb2.Event(**fields))
        return frame(event.SerializeToString())

    batch = b"".join((stored(1), stored(2, properties=b'{"a": \xff'), stored(3)))
    async with connect(suite.nats.url, "test") as bus:
        await bus.publish(collected(partition), b"\x00not protobuf", message_id=f"{prefix}garbage", headers={EVENTS: "1"})
        await bus.publish(collected(partition), batch, message_id=f"{prefix}batch", headers={EVENTS: "3"})
        await eventually(lambda: put_aside(bus))
    await loaded(shop, "poisonous", prefix, 2)

    async def found() -> bool:
        sql = f"SELECT count(*) FROM rejected_events WHERE message_id = '{prefix}2'"
        return await rows(shop, sql) == [[1.0]]

    await eventually(found)
    assert suite.service("enrichment").running
    assert suite.service("warehouse-loader").running


async def put_aside(bus: Bus) -> bool:
    counts = await bus.count_events(StreamName.DEAD_LETTERS)
    return sum(entry.messages for entry in counts.values()) == 1


async def test_revoked_consent_stops_what_is_already_queued(
    shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client]
) -> None:
    client, revoker, stayer = sdk(), f"{prefix}revoker", f"{prefix}stayer"
    endpoint.status, endpoint.refused = 503, 0
    try:
        for number in range(20):
            client.track(None, "Queued", anonymous_id=revoker, context=YES, message_id=f"{prefix}r{number}")
            client.track(None, "Queued", anonymous_id=stayer, context=YES, message_id=f"{prefix}s{number}")
        await flush(client)
        await loaded(shop, "queued", prefix, 40)
        await eventually(lambda: endpoint.refused > 0)
        await withdraw(shop, revoker)
        await asyncio.sleep(WITHDRAWAL_KNOWN_SECONDS)  # a request of before may be on its way
    finally:
        endpoint.status = 200
    await eventually(lambda: len(first_arrivals(endpoint, stayer)) == 20)
    assert first_arrivals(endpoint, stayer) == [f"{prefix}s{number}" for number in range(20)]
    assert not endpoint.arrived[revoker]


async def withdraw(shop: Peers, anonymous_id: str) -> None:
    decision = purpose_pb2.Decision(
        workspace_id=WORKSPACE, subject_type="anonymous_id", subject_id=anonymous_id, purpose="advertising", granted=False, proof="a call"
    )
    decision.decide_time.GetCurrentTime()
    answer = await ask((await shop.consent()).RecordDecisions, consent_service_pb2.RecordDecisionsRequest(decisions=[decision]))
    assert [result.status.code for result in answer.results] == [0]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.mark.usefixtures("shop")
async def test_one_sampled_event_is_one_trace_through_all_six_services(endpoint: Endpoint, prefix: str, suite: Suite) -> None:
    event = {"event": "Traced", "messageId": f"{prefix}1", "anonymousId": f"{prefix}a", "context": YES}
    headers = KEY | {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{suite.http_url}/v1/track", json=event) as answer,
    ):
        assert answer.status == 200
    services = {"collector", "enrichment", "consent", "identity", "router", "warehouse-loader"}
    await eventually(lambda: {span.service for span in suite.spans.of_trace(TRACE)} >= services and len(of_event(suite, prefix)) == 6)
    spans = {(span.service, span.name): span for span in of_event(suite, prefix)}
    collect, enrich = spans["collector", "collect"], spans["enrichment", "enrich"]
    assert collect.parent_span_id == CALLER
    assert enrich.parent_span_id == collect.span_id
    children = {("consent", "EvaluateConsent"), ("identity", "ResolveIdentities"), ("router", "deliver ads"), ("warehouse-loader", "load")}
    assert {key for key, span in spans.items() if span.parent_span_id == enrich.span_id} == children
    linked = {link.span_id for span in suite.spans.linking_to(TRACE) for link in span.links}
    assert {collect.span_id, enrich.span_id} <= linked, "the spans of batches link to the sampled events inside"


def of_event(suite: Suite, prefix: str) -> list:
    return [span for span in suite.spans.of_trace(TRACE) if span.message_id == f"{prefix}1"]


async def test_a_person_who_says_nothing_gets_no_advertising_and_is_loaded(
    shop: Peers, endpoint: Endpoint, prefix: str, sdk: Callable[[], Client]
) -> None:
    client = sdk()
    client.track(None, "Silent", anonymous_id=f"{prefix}a", message_id=f"{prefix}1")
    await flush(client)
    await loaded(shop, "silent", prefix, 1)
    client.track(None, "Silent", anonymous_id=f"{prefix}b", message_id=f"{prefix}2", context=YES)
    await flush(client)
    await eventually(lambda: first_arrivals(endpoint, f"{prefix}b") == [f"{prefix}2"])
    assert not endpoint.arrived[f"{prefix}a"]
    await loaded(shop, "silent", prefix, 2)


async def test_what_a_person_denied_is_taken_out_and_the_reason_is_told(
    shop: Peers, prefix: str, sdk: Callable[[], Client], suite: Suite
) -> None:
    rule = purpose_pb2.WarehouseRule(warehouse="main", columns=["traits.seat"])
    purpose = purpose_pb2.Purpose(workspace_id=WORKSPACE, name="calls", columns=["traits.phone"], categories=["us.sale"], warehouses=[rule])
    await ask((await shop.consent()).ApplyPurpose, consent_service_pb2.ApplyPurposeRequest(purpose=purpose))
    client = sdk()
    said = {
        "no": {"consent": {"usPrivacy": "1YYN"}},
        "yes": {"consent": {"usPrivacy": "1YNN", "categoryPreferences": {"advertising": False}}},
    }

    async def row(word: str, number: int) -> list[object]:
        """What becomes of the traits of one who says this."""
        message_id = f"{prefix}{word}-{number}"
        traits = {"phone": "555", "plan": "pro", "seat": "12A"}
        client.identify(f"{prefix}{word}", traits, message_id=message_id, context=said[word])
        await flush(client)
        await loaded(shop, "identifies", message_id, 1)
        (found,) = await rows(shop, f"SELECT phone, plan, seat FROM identifies WHERE id = '{message_id}'")
        return found

    assert await row("yes", 0) == ["555", "pro", "12A"]
    # The warehouse looks for changed purposes every second; enrichment asks.
    denied: list[list[object]] = []

    async def in_force() -> bool:
        denied.append(await row("no", len(denied)))
        return denied[-1] == [None, "pro", None]

    await eventually(in_force)
    assert {phone for phone, _, _ in denied} == {None}

    async def told() -> str:
        return await asyncio.to_thread(_explained, suite, f"{prefix}yes-0")

    explained = await eventually(told)
    assert "advertising: denied at" in explained
    assert "purpose version 1" in explained
    of_no = await asyncio.to_thread(_explained, suite, f"{prefix}no-{len(denied) - 1}")
    assert "taken out, because a purpose is denied: traits.phone" in of_no
    assert "loaded as NULL, because a purpose is denied: traits.seat" in of_no
    assert "calls: denied at" in of_no


def _explained(suite: Suite, message_id: str) -> str:
    """What `cdi explain` prints, once the destination has been reached; before that nothing."""
    command = [
        str(Path(sys.executable).with_name("cdi")),
        "explain",
        message_id,
        "--workspace",
        WORKSPACE,
        "--directory",
        str(suite.directory),
    ]
    environment = os.environ | {"COLUMNS": "400"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return "" if "not reached yet" in printed else printed
