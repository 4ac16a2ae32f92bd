"""The warehouse-loader's kinds: Warehouse and CleanRoom."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field

from cdi.warehouse.v1 import clean_room_pb2, clean_room_service_pb2, warehouse_service_pb2
from cdi_cli.documents.document import Applied, Document
from cdi_cli.documents.fields import Count, Metadata, Name, Resolved, Strict, Text
from cdi_cli.peers import Peers, ask


class WarehouseSpec(Strict):
    """Where rows are loaded: a schema of one of the loader's connections."""

    connection: str = ""
    schema_name: str = Field(default="", alias="schema")
    purposes: list[str] = Field(default=[])
    frozen_sources: list[str] = Field(default=[])


class KeyColumnSpec(Strict):
    """A column to group by, with all its groups."""

    column: Text
    values: list[str] = Field(min_length=1)


class NumberColumnSpec(Strict):
    """A column to sum, and between which bounds."""

    column: Text
    lower: float
    upper: float
    step: Annotated[float, Field(ge=0.0)] = 0.0


class CleanRoomTableSpec(Strict):
    """What partners may use of a table of events."""

    name: Text
    keys: list[KeyColumnSpec] = Field(default=[])
    numbers: list[NumberColumnSpec] = Field(default=[])
    filters: list[str] = Field(default=[])
    max_groups_per_person: Count = 0
    max_rows_per_person: Count = 0


class PartnerSpec(Strict):
    """Who may ask, for how much: ``tokens`` are values or ``env:NAME``, read here, sent and kept as hashes."""

    name: Name
    tokens: list[Resolved] = Field(min_length=1)
    epsilon: Annotated[float, Field(gt=0.0)]


class CleanRoomSpec(Strict):
    """What partners may learn of the warehouse; what is left out takes the loader's default."""

    schema_name: str = Field(default="", alias="schema")
    purposes: list[str] = Field(min_length=1)
    tables: list[CleanRoomTableSpec] = Field(min_length=1)
    minimum_group_size: Count = 0
    period_days: Count = 0
    partners: list[PartnerSpec] = Field(min_length=1)


class WarehouseDocument(Document):
    """Kind Warehouse."""

    kind: Literal["Warehouse"]
    metadata: Metadata
    spec: WarehouseSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``."""
        warehouse = warehouse_service_pb2.Warehouse(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            purposes=self.spec.purposes,
            connection=self.spec.connection,
            schema=self.spec.schema_name,
            frozen_sources=self.spec.frozen_sources,
        )
        answer = await ask((await peers.warehouse()).ApplyWarehouse, warehouse_service_pb2.ApplyWarehouseRequest(warehouse=warehouse))
        return Applied(answer.warehouse.version, answer.changed)


class CleanRoomDocument(Document):
    """Kind CleanRoom."""

    kind: Literal["CleanRoom"]
    metadata: Metadata
    spec: CleanRoomSpec

    async def apply(self, peers: Peers) -> Applied:
        """See ``Document``. Of the partners' tokens only the digests leave the command."""
        room = clean_room_pb2.CleanRoom(
            workspace_id=self.metadata.workspace,
            name=self.metadata.name,
            schema=self.spec.schema_name,
            purposes=self.spec.purposes,
            tables=map(_clean_room_table, self.spec.tables),
            minimum_group_size=self.spec.minimum_group_size,
            period_days=self.spec.period_days,
            partners=[
                clean_room_pb2.Partner(
                    name=partner.name,
                    token_hashes=[sha256(token.encode()).hexdigest() for token in partner.tokens],
                    epsilon=partner.epsilon,
                )
                for partner in self.spec.partners
            ],
        )
        request = clean_room_service_pb2.ApplyCleanRoomRequest(clean_room=room)
        answer = await ask((await peers.clean_rooms()).ApplyCleanRoom, request)
        return Applied(answer.clean_room.version, answer.changed)


def _clean_room_table(table: CleanRoomTableSpec) -> clean_room_pb2.CleanRoomTable:
    return clean_room_pb2.CleanRoomTable(
        name=table.name,
        keys=[clean_room_pb2.KeyColumn(column=key.column, values=key.values) for key in table.keys],
        numbers=[clean_room_pb2.NumberColumn(**number.model_dump()) for number in table.numbers],
        filters=table.filters,
        max_groups_per_person=table.max_groups_per_person,
        max_rows_per_person=table.max_rows_per_person,
    )
