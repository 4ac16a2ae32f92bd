"""``cdi.warehouse.v1.WarehouseService``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi.warehouse.v1 import warehouse_service_pb2_grpc as pb_grpc
from cdi_warehouse_loader import convert
from cdi_warehouse_loader.application.rebuilding import Rebuilding
from cdi_warehouse_loader.application.serving import Serving

Context = grpc.aio.ServicerContext[object, object]


class WarehouseServicer(pb_grpc.WarehouseServiceServicer):
    """Convert, ask the application, convert."""

    def __init__(self, serving: Serving, rebuilding: Rebuilding) -> None:
        self._serving = serving
        self._rebuilding = rebuilding

    async def ApplyWarehouse(self, request: pb.ApplyWarehouseRequest, context: Context) -> pb.ApplyWarehouseResponse:
        wanted = convert.document_of(request.warehouse)
        connection, document, changed = await self._serving.apply(request.warehouse.connection, wanted)
        return pb.ApplyWarehouseResponse(warehouse=convert.warehouse_of(connection.name, document), changed=changed)

    async def ListWarehouses(self, request: pb.ListWarehousesRequest, context: Context) -> pb.ListWarehousesResponse:
        found, more = await self._serving.documents(request.workspace_id, request.page_token, convert.page_size_of(request))
        warehouses = [convert.warehouse_of(connection.name, document) for connection, document in found]
        return pb.ListWarehousesResponse(warehouses=warehouses, next_page_token=warehouses[-1].name if more else "")

    async def Query(self, request: pb.QueryRequest, context: Context) -> AsyncIterator[pb.QueryResponse]:
        async for ipc, truncated in self._serving.stream(convert.asked_of(request)):
            yield pb.QueryResponse(ipc=ipc, truncated=truncated)

    async def QueryRows(self, request: pb.QueryRowsRequest, context: Context) -> pb.QueryRowsResponse:
        rows = await self._serving.rows(convert.asked_of(request))
        return await asyncio.to_thread(convert.rows_response, rows)

    async def CountOutcomes(self, request: pb.CountOutcomesRequest, context: Context) -> pb.CountOutcomesResponse:
        return convert.counts_response(await self._serving.counts())

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(connections=map(convert.status_of, await self._serving.status(convert.loads_of(request))))

    async def ListSchemaChanges(self, request: pb.ListSchemaChangesRequest, context: Context) -> pb.ListSchemaChangesResponse:
        start, size = convert.place_of(request.page_token), convert.page_size_of(request)
        changes = await self._serving.schema_changes(request.workspace_id, request.warehouse or convert.DEFAULT_WAREHOUSE)
        own = [change for change in changes if request.table in ("", change.table)]
        return convert.changes_response(own, start, size)

    async def RebuildWarehouse(self, request: pb.RebuildWarehouseRequest, context: Context) -> pb.RebuildWarehouseResponse:
        name = request.warehouse or convert.DEFAULT_WAREHOUSE
        rebuild = await self._rebuilding.start(request.workspace_id, name, request.table)
        return pb.RebuildWarehouseResponse(rebuild=convert.rebuild_of(rebuild))
