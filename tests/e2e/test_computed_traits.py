"""Computed traits the whole way: a document, orders over HTTP, and the next event's row carries what they come to."""

from pathlib import Path

import aiohttp

from cdi_cli.commands.applying import checked, send_documents
from cdi_cli.peers import Peers
from cdi_cli.suite import Suite
from cdi_testing import eventually
from tests.e2e.steps import WORKSPACE, WRITE_KEY, loaded, rows

KEY = {"Authorization": aiohttp.encode_basic_auth(WRITE_KEY, "")}
RULES = """\
apiVersion: cdi/v1
kind: IdentityRules
metadata: {workspace: %s}
spec:
  eventTraits: [orders_to_date, lifetime_value]
"""
TRAITS = """\
apiVersion: cdi/v1
kind: ComputedTrait
metadata: {workspace: %s, name: orders_to_date}
spec: {aggregation: eventCounter, eventNames: [Order Completed]}
---
apiVersion: cdi/v1
kind: ComputedTrait
metadata: {workspace: %s, name: lifetime_value}
spec:
  aggregation: sum
  path: properties.total
  eventNames: [Order Completed]
  conditions: [{path: properties.test, operator: notIn, values: [true]}]
"""


async def test_events_carry_what_the_orders_of_their_person_come_to(shop: Peers, prefix: str, suite: Suite, tmp_path: Path) -> None:
    async def send(number: int, name: str, **properties: object) -> None:
        event = {"event": name, "messageId": f"{prefix}{number}", "anonymousId": f"{prefix}a", "properties": properties}
        async with session.post(f"{suite.http_url}/v1/track", json=event) as answer:
            assert answer.status == 200

    async def columns(number: int) -> bool:
        await send(number, "Looked Around")
        await loaded(shop, "looked_around", f"{prefix}{number}", 1)
        table = "information_schema.columns WHERE table_name = 'looked_around' AND column_name LIKE 'context_profile_%'"
        if await rows(shop, f"SELECT count(*) FROM {table}") != [[2.0]]:
            return False
        sql = f"SELECT context_profile_orders_to_date, context_profile_lifetime_value FROM looked_around WHERE id = '{prefix}{number}'"
        return await rows(shop, sql) == [[3.0, 30.3]]

    async def apply(text: str) -> None:
        file = tmp_path / "shop.yaml"
        file.write_text(text)
        await send_documents(suite.endpoints, checked([file]))

    async with aiohttp.ClientSession(headers=KEY) as session:
        await apply(RULES % WORKSPACE)
        await send(1, "Order Completed", order_id="1", total=10.1)
        await apply(TRAITS % (WORKSPACE, WORKSPACE))
        await send(2, "Order Completed", order_id="2", total=20.2, test=False)
        await send(2, "Order Completed", order_id="2", total=20.2, test=False)
        await send(3, "Order Completed", order_id="3", total=500, test=True)
        tries = iter(range(10, 1_000))
        await eventually(lambda: columns(next(tries)), within=60)

    async def told() -> bool:
        sql = "SELECT name, value FROM user_traits t JOIN order_completed o ON t.canonical_profile_id = o.profile_id"
        return await rows(shop, f"{sql} WHERE o.id = '{prefix}1' ORDER BY name") == [["lifetime_value", "30.3"], ["orders_to_date", "3"]]

    await eventually(told)
