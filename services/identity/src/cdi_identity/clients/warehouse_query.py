"""One statement to the warehouse, through the loader's ``QueryRows``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from cdi.error.v1 import error_pb2
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1 import warehouse_service_pb2_grpc as pb_grpc
from cdi_kernel.faults import Fault, Internal, TooLarge, Unauthenticated, Unavailable
from cdi_runtime.rpc import call

PEER: Final = "warehouse"
DEADLINE_SECONDS: Final = 15.0
"""Of one question; the loader gives it ten."""

MAX_ROWS: Final = 10_000
"""Of one answer (contract of ``QueryRows``)."""


class WarehouseQuery:
    """Asks one warehouse-loader."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pb_grpc.WarehouseServiceStub(channel)

    async def rows(self, statement: str, rows: int = MAX_ROWS) -> Sequence[Any]:
        """Rows of values.

        Raises:
            TooLarge: over a limit of the loader.
            Unavailable: it does not answer, has too much to do, or does not know the token.
        """
        try:
            request = pb.QueryRowsRequest(sql=statement, max_rows=rows)
            answer = await call(self._stub.QueryRows, request, timeout=DEADLINE_SECONDS, peer=PEER)
        except TooLarge:
            raise
        except Unauthenticated as fault:
            raise Unavailable(PEER, "the warehouse does not know the token: CDI_WAREHOUSE_TOKEN") from fault
        except Fault as fault:
            if fault.retryable:
                raise Unavailable(PEER, f"the warehouse does not answer: {fault.message}", retry_after=fault.retry_after) from fault
            raise Internal(error_pb2.ERROR_REASON_INTERNAL, "the warehouse did not understand the question") from fault
        return [row.values for row in answer.rows]
