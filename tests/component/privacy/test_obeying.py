"""Obeying orders, over a real channel to what plays consent: the reports of a batch."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceServicer, add_PrivacyServiceServicer_to_server
from cdi_kernel.faults import Unavailable
from cdi_privacy import NothingHeld, PrivacyClient
from cdi_privacy.obeying import Obedience
from cdi_runtime import rpc
from cdi_runtime.bus import Done, Message
from tests.component.privacy_side import order

SERVICE = "collector"
ORDERS = 64


class Together(PrivacyServiceServicer):
    """Answers no report before as many are under way as a batch has orders; refuses those of some requests."""

    def __init__(self) -> None:
        self.arrived = asyncio.Barrier(ORDERS)
        self.refused: set[str] = set()
        self.reported: list[str] = []

    async def ReportSteps(self, request: pb.ReportStepsRequest, context: Any) -> pb.ReportStepsResponse:
        await self.arrived.wait()
        if request.request_id in self.refused:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.reported.append(request.request_id)
        return pb.ReportStepsResponse()


async def obeyed(servicer: Together, orders: Sequence[PrivacyOrder]) -> Sequence[object]:
    """What becomes of the batch."""
    server = grpc.aio.server()
    add_PrivacyServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    messages = [Message("cdi.privacy.erase", 0, place, {}, b"", each, 0, 1) for place, each in enumerate(orders)]
    try:
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            obedience = Obedience(SERVICE, NothingHeld({"spool": "nothing"}), PrivacyClient(channel, SERVICE))
            return await obedience.handle(messages)
    finally:
        await server.stop(None)


async def test_reports_of_a_batch_are_under_way_together() -> None:
    servicer, orders = Together(), [order(SERVICE, ("user_id", f"u{number}")) for number in range(ORDERS)]
    assert await obeyed(servicer, orders) == [Done()] * ORDERS
    assert sorted(servicer.reported) == sorted(each.request_id for each in orders)


async def test_one_report_that_fails_brings_the_batch_again() -> None:
    servicer, orders = Together(), [order(SERVICE, ("user_id", f"u{number}")) for number in range(ORDERS)]
    servicer.refused.add(orders[3].request_id)
    with pytest.raises(Unavailable):
        await obeyed(servicer, orders)
    assert len(servicer.reported) == ORDERS - 1
