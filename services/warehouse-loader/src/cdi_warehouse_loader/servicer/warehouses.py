"""``cdi.warehouse.v1.WarehouseService``."""

from __future__ import annotations

import asyncio

import grpc

from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1 import warehouse_service_pb2_grpc as pb_grpc
from cdi_kernel.faults import InvalidArgument
from cdi_warehouse_loader import convert
from cdi_warehouse_loader.application.serving import Serving

Context = grpc.aio.ServicerContext[object, object]


class WarehouseServicer(pb_grpc.WarehouseServiceServicer):
    """Convert, ask the application, convert."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def ApplyWarehouse(self, request: pb.ApplyWarehouseRequest, context: Context) -> pb.ApplyWarehouseResponse:
        document, changed = await self._serving.apply(convert.document_of(request.warehouse))
        return pb.ApplyWarehouseResponse(warehouse=convert.warehouse_of(document), changed=changed)

    async def ListWarehouses(self, request: pb.ListWarehousesRequest, context: Context) -> pb.ListWarehousesResponse:
        documents, more = await self._serving.documents(request.workspace_id, request.page_token, convert.page_size_of(request))
        token = documents[-1].name if more else ""
        return pb.ListWarehousesResponse(warehouses=map(convert.warehouse_of, documents), next_page_token=token)

    async def Query(self, request: pb.QueryRequest, context: Context) -> pb.QueryResponse:
        if request.max_rows < 0:
            raise InvalidArgument("there is no negative number of rows", field_violations=[("max_rows", "must not be negative")])
        rows = await self._serving.query(request.sql, request.max_rows)
        return await asyncio.to_thread(convert.query_response, rows)

    async def CountOutcomes(self, request: pb.CountOutcomesRequest, context: Context) -> pb.CountOutcomesResponse:
        return convert.counts_response(await self._serving.counts())
