"""What a warehouse in BigQuery says of itself: tables, positions, counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdi.event.v1 import outcome_pb2
from cdi_warehouse_loader.domain import naming
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.documents import Document
from cdi_warehouse_loader.domain.load import Catalog, CountKey, Position, StreamPartition
from cdi_warehouse_loader.ports import Change, LoadEntry, SchemaChange
from cdi_warehouse_loader.warehouses.bigquery.connection import Connection
from cdi_warehouse_loader.warehouses.bigquery.sql import KINDS, OWN, quoted, seen_column, text

_NEWEST: Final = f"""SELECT (SELECT MAX(`version`) FROM `{OWN}`.`state`) AS version,
    (SELECT COALESCE(MAX(UNIX_MICROS(`erased_at`)), 0) FROM `{OWN}`.`tombstones`) AS newest"""
_SCHEMAS: Final = f"""SELECT `schema_name`, `views` FROM `{OWN}`.`schemas`
    WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY `schema_name` ORDER BY `noted_at` DESC) = 1"""
_PROGRESS: Final = f"SELECT `stream`, `partition`, `sequence`, `source_sequence` FROM `{OWN}`.`progress`"
_CLEARS: Final = f"SELECT `schema_name`, `table_name` FROM `{OWN}`.`clears` ORDER BY `schema_name`, `table_name`"
_COUNTS: Final = f"SELECT `sink`, `outcome`, `reason`, SUM(`events`) AS events FROM `{OWN}`.`outcomes` GROUP BY `sink`, `outcome`, `reason`"
_LOADS: Final = f"""SELECT `stream`, UNIX_MICROS(`started_at`) AS started, `milliseconds`, `events`, `row_count`, `byte_count`, `tables`
    FROM `{OWN}`.`loads` ORDER BY `started_at` DESC LIMIT {{limit}}"""
# A change that a process died over, and another one did again, is one change.
_CHANGES: Final = f"""SELECT UNIX_MICROS(MIN(`changed_at`)) AS changed, `table_name`, `column_name`, `change`, `type`
    FROM `{OWN}`.`schema_changes` WHERE `schema_name` = {{schema}}
    GROUP BY `table_name`, `column_name`, `change`, `type` ORDER BY changed, MIN(`number`)"""


@dataclass(frozen=True, slots=True)
class State:
    """A warehouse as it was seen.

    Attributes:
        version: rises with every change of any table and every erasure. Read first: what came later is found when it is compared.
        newest_erasure_us: see ``ports.Warehouse``.
        schemas: the loader's datasets, with a digest of their views. Others of the project are none of its business.
        catalog: their tables.
        positions: see ``ports.Warehouse``.
        clears: tables that are to be emptied before anything is loaded.
    """

    version: int
    newest_erasure_us: int
    schemas: Mapping[str, str]
    catalog: Catalog
    positions: Mapping[StreamPartition, Position]
    clears: Sequence[tuple[str, str]] = ()


def read(connection: Connection) -> State:
    """The state."""
    ((version, newest_us),) = connection.rows(_NEWEST)
    schemas = read_schemas(connection)
    positions = {StreamPartition(stream, partition): Position(*at) for stream, partition, *at in connection.rows(_PROGRESS)}
    clears = [(schema, table) for schema, table in connection.rows(_CLEARS)]
    return State(version, newest_us, schemas, read_catalog(connection, schemas), positions, clears)


def read_schemas(connection: Connection) -> Mapping[str, str]:
    """The loader's datasets, with a digest of their views."""
    return dict(connection.rows(_SCHEMAS))


def read_catalog(connection: Connection, schemas: Mapping[str, str]) -> Catalog:
    """The tables of datasets."""
    found: dict[str, dict[str, dict[str, ColumnType]]] = {name: {} for name in schemas}
    for schema in schemas:
        columns = f"""SELECT `table_name`, `column_name`, `data_type` FROM {quoted(schema)}.INFORMATION_SCHEMA.COLUMNS
            ORDER BY `table_name`, `ordinal_position`"""
        for table, column, spelled in connection.rows(columns):
            if table not in naming.VIEWS:
                found[schema].setdefault(table, {})[seen_column(column)] = KINDS.get(spelled, ColumnType.TEXT)
    return found


def counts(connection: Connection) -> dict[CountKey, int]:
    """What became of the events, by key."""
    return {
        CountKey(sink, outcome_pb2.Outcome.ValueType(outcome), reason): int(events)
        for sink, outcome, reason, events in connection.rows(_COUNTS)
    }


def loads(connection: Connection, limit: int) -> list[LoadEntry]:
    """The newest entries of the log."""
    return [LoadEntry(*row) for row in connection.rows(_LOADS.format(limit=limit))]


def schema_changes(connection: Connection, schema: str) -> list[SchemaChange]:
    """The history of a schema."""
    rows = connection.rows(_CHANGES.format(schema=text(schema)))
    return [SchemaChange(at_us, schema, table, column, Change(change), kind) for at_us, table, column, change, kind in rows]


def documents(connection: Connection) -> list[Document]:
    """Warehouse documents, by workspace and name."""
    rows = connection.rows(
        f"SELECT `workspace_id`, `name`, `purposes`, `schema_name`, `version`, `frozen_sources` FROM `{OWN}`.`warehouses`"
    )
    return sorted(
        (
            Document(workspace_id, name, tuple(json.loads(purposes)), schema, version, tuple(json.loads(frozen)))
            for workspace_id, name, purposes, schema, version, frozen in rows
        ),
        key=lambda document: (document.workspace_id, document.name),
    )


def put_document(document: Document) -> list[str]:
    """Statements that store a document in place of the one of its name; for a transaction."""
    names = ("workspace_id", "name", "schema_name", "version", "purposes", "frozen_sources")
    given = (
        text(document.workspace_id), text(document.name), text(document.schema), str(document.version),
        text(json.dumps(document.purposes)), text(json.dumps(document.frozen_sources)),
    )  # fmt: skip
    return [
        f"""DELETE FROM `{OWN}`.`warehouses`
            WHERE `workspace_id` = {text(document.workspace_id)} AND `name` = {text(document.name)}""",
        f"INSERT INTO `{OWN}`.`warehouses` ({', '.join(map(quoted, names))}) VALUES ({', '.join(given)})",
    ]
