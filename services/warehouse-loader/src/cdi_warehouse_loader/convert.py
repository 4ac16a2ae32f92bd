"""Requests and responses of ``WarehouseService`` to and from the domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from google.protobuf import struct_pb2

from cdi.event.v1 import outcome_pb2
from cdi.warehouse.v1 import warehouse_service_pb2 as pb
from cdi_kernel.faults import InvalidArgument
from cdi_warehouse_loader.application.serving import Asked, Status
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.load import CountKey
from cdi_warehouse_loader.domain.rebuild import Rebuild
from cdi_warehouse_loader.ports import LoadEntry, Rows, SchemaChange

DEFAULT_SCHEMA = "main"
DEFAULT_WAREHOUSE = "main"
DEFAULT_PAGE, MAX_PAGE = 100, 1_000
DEFAULT_LOADS, MAX_LOADS = 10, 100


def document_of(warehouse: pb.Warehouse) -> Document:
    """A warehouse as its document."""
    purposes, frozen = (tuple(sorted(set(names))) for names in (warehouse.purposes, warehouse.frozen_sources))
    return Document(warehouse.workspace_id, warehouse.name, purposes, warehouse.schema or DEFAULT_SCHEMA, frozen_sources=frozen)


def warehouse_of(connection: str, document: Document) -> pb.Warehouse:
    """A document as the resource."""
    return pb.Warehouse(
        workspace_id=document.workspace_id,
        name=document.name,
        purposes=document.purposes,
        version=document.version,
        connection=connection,
        schema=document.schema,
        frozen_sources=document.frozen_sources,
    )


class _Paged(Protocol):
    page_size: int


def page_size_of(request: _Paged) -> int:
    """How many a page holds.

    Raises:
        InvalidArgument: a negative number.
    """
    _not_negative("page_size", request.page_size)
    return min(request.page_size or DEFAULT_PAGE, MAX_PAGE)


def asked_of(request: pb.QueryRequest | pb.QueryRowsRequest) -> Asked:
    """A query.

    Raises:
        InvalidArgument: a negative number of rows.
    """
    _not_negative("max_rows", request.max_rows)
    return Asked(request.connection, request.sql, request.max_rows, frozenset(request.purposes))


def rows_response(rows: Rows) -> pb.QueryRowsResponse:
    """The answer of a query."""
    response = pb.QueryRowsResponse(columns=[pb.Column(name=name, type=kind) for name, kind in rows.columns], truncated=rows.truncated)
    for values in rows.values:
        response.rows.append(struct_pb2.ListValue(values=[_value(value) for value in values]))
    return response


def loads_of(request: pb.GetStatusRequest) -> int:
    """How many loads are asked for.

    Raises:
        InvalidArgument: a negative number.
    """
    _not_negative("loads", request.loads)
    return min(request.loads or DEFAULT_LOADS, MAX_LOADS)


def status_of(status: Status) -> pb.ConnectionStatus:
    """How a connection is."""
    return pb.ConnectionStatus(
        connection=status.connection.name,
        kind=status.connection.kind,
        down=status.down or "",
        streams=[pb.StreamStatus(stream=stream, pending=messages) for stream, messages in status.pending.items()],
        loads=map(_load_entry, status.loads),
        rebuilds=map(rebuild_of, status.rebuilds),
    )


def rebuild_of(rebuild: Rebuild) -> pb.Rebuild:
    """How far a rebuild is."""
    following, last = rebuild.messages
    return pb.Rebuild(
        workspace_id=rebuild.workspace_id,
        warehouse=rebuild.warehouse,
        table=rebuild.table,
        number=rebuild.number,
        done=rebuild.done,
        next_sequence=following,
        last_sequence=last,
    )


def changes_response(changes: Sequence[SchemaChange], start: int, size: int) -> pb.ListSchemaChangesResponse:
    """A page of the history; a token is the place of its first change: the history only grows."""
    page = changes[start : start + size]
    response = pb.ListSchemaChangesResponse(next_page_token=str(start + size) if start + size < len(changes) else "")
    for change in page:
        added = response.changes.add(table=change.table, column=change.column, change=change.change.value, type=change.type)
        added.change_time.FromMicroseconds(change.changed_us)
    return response


def place_of(token: str) -> int:
    """The place that a token of ``changes_response`` says.

    Raises:
        InvalidArgument: it is none.
    """
    if token and not token.isdecimal():
        raise InvalidArgument("not a token of this call", field_violations=[("page_token", "must be one of an earlier answer")])
    return int(token or 0)


def counts_response(counts: Mapping[CountKey, int]) -> pb.CountOutcomesResponse:
    """The lines of the audit."""
    return pb.CountOutcomesResponse(
        counts=[
            outcome_pb2.OutcomeCount(sink=key.sink, outcome=key.outcome, reason=key.reason, events=events) for key, events in counts.items()
        ]
    )


def _load_entry(entry: LoadEntry) -> pb.LoadEntry:
    told = pb.LoadEntry(stream=entry.stream, events=entry.events, rows=entry.rows, bytes=entry.size, tables=entry.tables)
    told.start_time.FromMicroseconds(entry.started_us)
    told.duration.FromMicroseconds(round(entry.milliseconds * 1_000))
    return told


def _not_negative(field: str, number: int) -> None:
    if number < 0:
        raise InvalidArgument(f"{field} is negative", field_violations=[(field, "must not be negative")])


def _value(value: object) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))
