"""Web hooks at a running collector, their source documents applied as the command does it."""

import hmac
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from cdi.collector.v1.collector_service_pb2 import ApplySourceRequest, ListSourcesRequest
from cdi.collector.v1.collector_service_pb2_grpc import SourcesServiceStub
from cdi.collector.v1.source_pb2 import Source, Webhook, WebhookMapping, WebhookSignature
from cdi.event.v1 import event_pb2
from cdi_cli.documents import read_documents
from cdi_cli.embedded import ServiceProcess
from cdi_cli.peers import connect_peers

from .conftest import ADMIN, ADMIN_TOKEN, HOOK_SECRET, WRITE_KEY, Answer, Stored, post

DOCUMENT = """\
apiVersion: cdi/v1
kind: Source
metadata: {workspace: acme, name: billing}
spec:
  writeKeys: [billing-key]
  webhook:
    signature:
      header: Stripe-Signature
      template: t={timestamp},v1={signature}
      signed: "{timestamp}.{body}"
      secrets: [env:HOOK_SECRET]
    mapping: {event: /type, userId: /data/object/customer, messageId: /id, timestamp: /created, properties: /data/object}
"""
CHARGE = {"id": "evt_1", "type": "charge.succeeded", "created": 1_767_323_046, "data": {"object": {"customer": "cus_1", "amount": 5}}}


async def applied(collector: ServiceProcess, tmp_path: Path, text: str) -> Any:
    (tmp_path / "source.yaml").write_text(text)
    (document,) = read_documents([tmp_path / "source.yaml"])
    async with connect_peers(SimpleNamespace(grpc=lambda _: collector.grpc, admin_token=ADMIN_TOKEN)) as peers:  # type: ignore[arg-type]
        return await document.apply(peers)


def signed_post(
    collector: ServiceProcess, body: bytes, *, age: int = 0, secret: str = HOOK_SECRET, path: str = "/v1/webhook/acme/billing"
) -> Answer:
    stamp = int(time.time()) - age
    signature = hmac.new(secret.encode(), b"%d.%s" % (stamp, body), "sha256").hexdigest()
    return post(collector, path, body, {"Stripe-Signature": f"t={stamp},v1={signature}", "Content-Type": "application/json"})


async def test_a_signed_hook(collector: ServiceProcess, stored: Stored, tmp_path: Path) -> None:
    first, again = [await applied(collector, tmp_path, DOCUMENT) for _ in range(2)]
    assert (first.outcome, again.outcome) == ("created", "unchanged")

    body = json.dumps(CHARGE).encode()
    answer = signed_post(collector, body)
    assert (answer.status, answer.body) == (200, {"success": True})
    for refused in (
        signed_post(collector, body, secret="other"),
        signed_post(collector, body, age=400),
        signed_post(collector, body, secret="other", path="/v1/webhook/billing-key"),
        post(collector, "/v1/webhook/acme/billing", body, {}),
    ):
        assert (refused.status, refused.body["code"]) == (401, "invalid_signature")
    assert signed_post(collector, body, path="/v1/webhook/billing-key").status == 200

    events = await stored.collected()
    assert len(events) == 2
    for event in events:
        assert (event.workspace_id, event.source_id, event.type) == ("acme", "billing", event_pb2.EVENT_TYPE_TRACK)
        assert (event.name, event.user_id, event.message_id) == ("charge.succeeded", "cus_1", "evt_1")
        assert (event.original_time.seconds, json.loads(event.properties)) == (CHARGE["created"], {"customer": "cus_1", "amount": 5})


async def test_what_is_signed_and_no_event_is_kept_as_rejected(collector: ServiceProcess, stored: Stored, tmp_path: Path) -> None:
    await applied(collector, tmp_path, DOCUMENT)
    bodies = [
        b"a=b",
        json.dumps(CHARGE | {"type": 5}).encode(),
        json.dumps(CHARGE | {"id": "x" * 101}).encode(),
        json.dumps(CHARGE | {"data": {"object": {"customer": "cus_1", "note": "x" * 33_000}}}).encode(),
    ]
    for body in bodies:
        assert signed_post(collector, body).status == 200
    rejected = await stored.rejected()
    assert [(event.reason, event.payload) for event in rejected] == list(
        zip(["malformed_payload", "invalid_field", "message_id_too_long", "too_large"], bodies, strict=True)
    )
    assert await stored.collected() == []


async def test_an_unsigned_hook_is_any_json_at_a_write_key(collector: ServiceProcess, stored: Stored) -> None:
    for body in ({"a": 1}, [1, 2]):
        assert post(collector, f"/v1/webhook/{WRITE_KEY}", body, {}).status == 200
    found = [(event.source_id, event.name, event.anonymous_id, json.loads(event.properties)) for event in await stored.collected()]
    assert found == [("web", "webhook", "web", {"a": 1}), ("web", "webhook", "web", {"data": [1, 2]})]
    assert post(collector, "/v1/webhook/nope", {}, {}).status == 401
    for path in ("/v1/webhook/acme/web", "/v1/webhook/acme/nope"):
        assert post(collector, path, {}, {}).body["code"] == "not_found"


async def test_the_rules_are_changed_listed_and_checked(collector: ServiceProcess, stored: Stored, tmp_path: Path) -> None:
    await applied(collector, tmp_path, DOCUMENT)
    changed = await applied(collector, tmp_path, DOCUMENT.replace("event: /type", "event: billed"))
    assert changed.outcome == "changed"
    assert signed_post(collector, json.dumps(CHARGE).encode()).status == 200
    assert [event.name for event in await stored.collected()] == ["billed"]

    with grpc.insecure_channel(collector.grpc) as channel:
        sources = SourcesServiceStub(channel)
        listed = {
            source.source_id: source for source in sources.ListSources(ListSourcesRequest(workspace_id="acme"), metadata=ADMIN).sources
        }
        assert listed["billing"].webhook.mapping.event == "billed"
        assert list(listed["billing"].webhook.signature.secrets) == ["env:HOOK_SECRET"]
        assert not listed["web"].HasField("webhook")

        keyless = Source(workspace_id="acme", source_id="keyless", webhook=listed["billing"].webhook)
        sources.ApplySource(ApplySourceRequest(source=keyless), metadata=ADMIN)
        assert signed_post(collector, json.dumps(CHARGE).encode(), path="/v1/webhook/acme/keyless").status == 200

        keyless.webhook.signature.secrets[:] = ["env:NOT_THERE"]
        sources.ApplySource(ApplySourceRequest(source=keyless), metadata=ADMIN)
        answer = signed_post(collector, json.dumps(CHARGE).encode(), path="/v1/webhook/acme/keyless")
        assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "dependency_unavailable", "1")

        wrong = Webhook(signature=WebhookSignature(header="X", secrets=["plain"]), mapping=WebhookMapping(type="alias"))
        with pytest.raises(grpc.RpcError) as raised:
            sources.ApplySource(ApplySourceRequest(source=Source(workspace_id="acme", source_id="wrong", webhook=wrong)), metadata=ADMIN)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
