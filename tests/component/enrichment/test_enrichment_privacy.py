"""Suppressed people: their events end in enrichment, also those that would be rejected; and what is reported on orders."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest

from cdi.consent.v1 import consent_service_pb2_grpc
from cdi.enrichment.v1.enrichment_service_pb2 import ApplyTrackingPlanRequest
from cdi.enrichment.v1.tracking_plan_pb2 import VIOLATION_POLICY_BLOCK, VIOLATION_POLICY_FORWARD, EventRule, TrackingPlan
from cdi_cli.embedded import ServiceProcess
from cdi_runtime.bus import connect
from cdi_testing import builders
from cdi_testing.plugin import MigratedDatabases, StartService
from tests.component.enrichment.conftest import PARTITIONS, Run, Stage
from tests.component.privacy_side import Consents, PrivacySide, order, privacy_side, tell

TOKEN = "planted-e0d2"
HER = f"{TOKEN}-user"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = '{"properties": {"properties": {"required": ["order_id"]}}}'


class Alone:
    """Enrichment and identity beside a consent side that the test plays."""

    def __init__(self, run: Run, consents: Consents, consent: PrivacySide, identity_database: str) -> None:
        self.run = run
        self.consents = consents
        self.consent = consent
        self.identity_database = identity_database


@pytest.fixture
async def alone(start_service: StartService, migrated_database: MigratedDatabases, fresh_nats: Any) -> AsyncIterator[Alone]:
    consents = Consents()
    register = consent_service_pb2_grpc.add_ConsentServiceServicer_to_server
    async with privacy_side((register, consents)) as (consent, address), connect(fresh_nats.url, "test") as bus:
        database = migrated_database("identity")
        identity = start_service("identity", {"CDI_DATABASE_URL": database})
        targets = {"CDI_CONSENT_TARGET": address, "CDI_IDENTITY_TARGET": identity.grpc, "CDI_PARTITIONS": str(PARTITIONS)}
        enrichment: ServiceProcess = start_service("enrichment", targets)
        channels = {name: grpc.aio.insecure_channel(one.grpc) for name, one in (("enrichment", enrichment), ("identity", identity))}
        channels["consent"] = grpc.aio.insecure_channel(address)
        run = Run(Stage(fresh_nats, identity, identity, enrichment), bus, channels, builders.WORKSPACE)
        await run.begin()
        yield Alone(run, consents, consent, database)
        for channel in channels.values():
            await channel.close(grace=None)


async def test_events_of_suppressed_people_go_nowhere_and_are_counted(alone: Alone) -> None:
    run = alone.run
    plan = TrackingPlan(
        workspace_id=builders.WORKSPACE, name="shop", source_ids=[builders.SOURCE], violations=VIOLATION_POLICY_BLOCK,
        unplanned_events=VIOLATION_POLICY_FORWARD, rules=[EventRule(type="track", event="Order Completed", json_schema=PLAN)],
    )  # fmt: skip
    await run.plans.ApplyTrackingPlan(ApplyTrackingPlanRequest(tracking_plan=plan))
    alone.consents.until[HER] = NOW
    late = NOW + timedelta(microseconds=1)
    events = [
        builders.track(user_id=HER, message_id="before", at=NOW),
        builders.track("Order Completed", user_id=HER, message_id="broken", at=NOW, properties={"note": TOKEN}),
        builders.track("Order Completed", user_id="other", message_id="other-broken", at=NOW),
        builders.track(user_id="other", message_id="other", at=NOW),
        builders.track(user_id=HER, message_id="before", at=NOW),
        builders.track(user_id=HER, message_id="after", at=late),
    ]
    await run.collect(events)
    await run.handled(6)
    assert [event.message_id for event in await run.enriched()] == ["other", "after"]
    assert [event.message_id for event in await run.rejected()] == ["other-broken"]
    assert await run.counts() == {
        ("accepted", ""): 6, ("duplicate", ""): 1, ("suppressed", "suppressed"): 2, ("enriched", ""): 2,
        ("rejected", "schema_violation"): 1,
    }  # fmt: skip


async def test_nobody_who_is_suppressed_reaches_the_graph(alone: Alone) -> None:
    alone.consents.until[HER] = NOW
    alone.consents.linkable = True
    await alone.run.collect([builders.track(user_id=HER, at=NOW), builders.track(user_id="other", at=NOW)])
    await alone.run.handled(2)
    connection = await asyncpg.connect(alone.identity_database)
    assert [row[0] for row in await connection.fetch("SELECT value FROM identifiers")] == ["other"]
    await connection.close()


async def test_it_reports_that_it_holds_nothing(alone: Alone) -> None:
    erasing = order("enrichment", ("user_id", HER))
    await tell(alone.run.bus, erasing)
    steps = await alone.consent.reported(erasing, "enrichment")
    assert steps["dedupe_window"].count == 0
    assert "digests" in steps["dedupe_window"].detail
