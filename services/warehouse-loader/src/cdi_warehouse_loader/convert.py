"""Requests and responses of ``WarehouseService`` to and from the domain."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import struct_pb2

from cdi.event.v1 import outcome_pb2
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_kernel.faults import InvalidArgument
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.load import CountKey
from cdi_warehouse_loader.ports import Rows

DEFAULT_SCHEMA = "main"
DEFAULT_PAGE, MAX_PAGE = 100, 1_000


def document_of(warehouse: pb.Warehouse) -> Document:
    """A warehouse as its document; a missing kind is DuckDB with its defaults."""
    purposes = tuple(sorted(set(warehouse.purposes)))
    return Document(warehouse.workspace_id, warehouse.name, purposes, warehouse.duckdb.schema or DEFAULT_SCHEMA)


def warehouse_of(document: Document) -> pb.Warehouse:
    """A document as the resource."""
    return pb.Warehouse(
        workspace_id=document.workspace_id,
        name=document.name,
        purposes=document.purposes,
        duckdb=pb.DuckDb(schema=document.schema),
        version=document.version,
    )


def page_size_of(request: pb.ListWarehousesRequest) -> int:
    """How many warehouses a page holds.

    Raises:
        InvalidArgument: a negative number.
    """
    if request.page_size < 0:
        raise InvalidArgument("a page has no negative size", field_violations=[("page_size", "must not be negative")])
    return min(request.page_size or DEFAULT_PAGE, MAX_PAGE)


def query_response(rows: Rows) -> pb.QueryResponse:
    """The answer of a query."""
    response = pb.QueryResponse(columns=[pb.Column(name=name, type=kind) for name, kind in rows.columns], truncated=rows.truncated)
    for values in rows.values:
        response.rows.append(struct_pb2.ListValue(values=[_value(value) for value in values]))
    return response


def counts_response(counts: Mapping[CountKey, int]) -> pb.CountOutcomesResponse:
    """The lines of the audit."""
    return pb.CountOutcomesResponse(
        counts=[
            outcome_pb2.OutcomeCount(sink=key.sink, outcome=key.outcome, reason=key.reason, events=events) for key, events in counts.items()
        ]
    )


def _value(value: object) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))
