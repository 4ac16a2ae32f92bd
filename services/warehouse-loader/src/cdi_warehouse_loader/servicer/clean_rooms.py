"""``cdi.warehouse.v1.CleanRoomService``."""

from __future__ import annotations

import grpc

from cdi.warehouse.v1 import clean_room_service_pb2 as pb
from cdi.warehouse.v1 import clean_room_service_pb2_grpc as pb_grpc
from cdi_runtime.rpc import TokenGuard, token_digest
from cdi_warehouse_loader import convert_clean_rooms as convert
from cdi_warehouse_loader.application.clean_rooms import Caller, CleanRooms

Context = grpc.aio.ServicerContext[object, object]


class CleanRoomServicer(pb_grpc.CleanRoomServiceServicer):
    """Convert, ask the application, convert.

    Args:
        rooms: the use cases.
        administration: knows the admin tokens.
    """

    def __init__(self, rooms: CleanRooms, administration: TokenGuard) -> None:
        self._rooms = rooms
        self._administration = administration

    async def ApplyCleanRoom(self, request: pb.ApplyCleanRoomRequest, context: Context) -> pb.ApplyCleanRoomResponse:
        self._administration(context)
        room, changed = await self._rooms.apply(convert.document_of(request.clean_room))
        return pb.ApplyCleanRoomResponse(clean_room=convert.clean_room_of(room), changed=changed)

    async def QueryAggregates(self, request: pb.QueryAggregatesRequest, context: Context) -> pb.QueryAggregatesResponse:
        return convert.answer_of(await self._rooms.query(self._caller(context), convert.room_of(request), convert.query_of(request)))

    async def ListQueries(self, request: pb.ListQueriesRequest, context: Context) -> pb.ListQueriesResponse:
        before, size = convert.page_of(request)
        entries, more = await self._rooms.log(self._caller(context), convert.room_of(request), request.partner, before, size)
        token = str(entries[-1].query_id) if more else ""
        return pb.ListQueriesResponse(queries=map(convert.logged_of, entries), next_page_token=token)

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        return convert.budget_of(await self._rooms.budget(self._caller(context), convert.room_of(request), request.partner))

    def _caller(self, context: Context) -> Caller:
        digest = token_digest(context)
        return Caller(digest, self._administration.holds(digest))
