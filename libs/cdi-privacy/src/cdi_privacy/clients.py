"""The consent service's privacy side, as the services that obey its orders call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

import grpc

from cdi.consent.v1 import privacy_service_pb2 as pb
from cdi.consent.v1.privacy_pb2 import PrivacyOrder
from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceStub
from cdi_privacy.keeper import Holding, Step
from cdi_runtime import rpc

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.privacy_service_pb2_grpc import PrivacyServiceAsyncStub

DEADLINE_SECONDS: Final = 5.0
UPLOAD_SECONDS: Final = 600.0
"""For all that a service holds about one person."""

MAX_ROWS: Final = 1_000
MAX_BYTES: Final = 256 * 1024
"""Of one message of SendHoldings (privacy_service.proto), unless a single row is larger."""

PEER: Final = "consent"


class PrivacyClient:
    """Reports and sends for one service.

    Args:
        channel: to consent.
        service: who reports.
    """

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._stub: PrivacyServiceAsyncStub = PrivacyServiceStub(channel)
        self._service = service

    async def report(self, order: PrivacyOrder, steps: Sequence[Step]) -> None:
        """Tells what was done of an order. Raises ``NotFound`` for an unknown request, ``Unavailable`` while consent is away."""
        request = pb.ReportStepsRequest(request_id=order.request_id, service=self._service, attempt=order.attempt, steps=steps)
        await rpc.call(self._stub.ReportSteps, request, timeout=DEADLINE_SECONDS, peer=PEER)

    async def send(self, order: PrivacyOrder, holdings: AsyncIterator[Holding]) -> dict[str, int]:
        """Sends all that is held, in pieces; rows by holding. Raises as ``report``."""
        sent: dict[str, int] = {}

        async def messages() -> AsyncIterator[pb.SendHoldingsRequest]:
            yield pb.SendHoldingsRequest(request_id=order.request_id, service=self._service)
            async for holding in holdings:
                sent[holding.name] = sent.get(holding.name, 0) + len(holding.rows)
                for rows in pieces(holding.rows):
                    yield pb.SendHoldingsRequest(holding=holding.name, rows=rows)

        await rpc.upload(self._stub.SendHoldings, messages(), timeout=UPLOAD_SECONDS, peer=PEER)
        return sent


def pieces(rows: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Rows, in order, cut to the limits of one message; a row over ``MAX_BYTES`` has a message of its own."""
    cut: list[Sequence[bytes]] = []
    start, size = 0, 0
    for index, row in enumerate(rows):
        if index > start and (index - start >= MAX_ROWS or size + len(row) > MAX_BYTES):
            cut.append(rows[start:index])
            start, size = index, 0
        size += len(row)
    return [*cut, rows[start:]] if start < len(rows) else cut
