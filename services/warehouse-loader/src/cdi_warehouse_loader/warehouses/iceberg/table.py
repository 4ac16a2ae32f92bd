"""One table of the lake as of one commit, and how the next one comes to be.

Only the current snapshot is kept: older ones would hold what has been erased. Files that a commit replaces stay for a while, for whoever
reads them. Source of the formats: the Iceberg table specification, version 2.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    read_manifest_list,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table.metadata import TableMetadataV2, new_table_metadata
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotLogEntry, Summary
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from cdi_kernel.faults import Unavailable
from cdi_warehouse_loader.domain import archive
from cdi_warehouse_loader.domain.columns import ColumnType
from cdi_warehouse_loader.domain.layout import is_event_table
from cdi_warehouse_loader.warehouses.iceberg.catalog import DEPENDENCY
from cdi_warehouse_loader.warehouses.iceberg.fields import by_day, by_day_and_source, columns_of
from cdi_warehouse_loader.warehouses.iceberg.storage import Storage

_VERSION: Final = 2
_CODEC: Final = "deflate"
_MAX_MANIFESTS: Final = 16
_FULL_MANIFEST: Final = 500
"""Files of a manifest that is not merged with others any more."""

_MAIN: Final = "main"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A list of data files.

    Attributes:
        file: what the list of manifests says of it.
        entries: its files.
    """

    file: ManifestFile
    entries: Sequence[ManifestEntry]


class LakeTable:
    """A table as of one commit; never changes.

    Args:
        storage: where its files are.
        metadata: what its metadata file says.
        location: of the metadata file; empty: the table is not made yet.
        manifests: read when they are needed, if not given.
    """

    def __init__(self, storage: Storage, metadata: TableMetadataV2, location: str, manifests: Sequence[Manifest] | None = None) -> None:
        self.metadata = metadata
        self.location = location
        self._storage = storage
        if manifests is not None:
            self.manifests = manifests

    @cached_property
    def manifests(self) -> Sequence[Manifest]:
        """The lists of its data files."""
        snapshot = self.metadata.current_snapshot()
        if snapshot is None:
            return ()
        listed = read_manifest_list(self._storage.io.new_input(snapshot.manifest_list))
        return [Manifest(file, [_standing(entry) for entry in file.fetch_manifest_entry(self._storage.io)]) for file in listed]

    @cached_property
    def files(self) -> Mapping[str, DataFile]:
        """Its data files by name."""
        return {entry.data_file.file_path: entry.data_file for manifest in self.manifests for entry in manifest.entries}

    @cached_property
    def columns(self) -> Mapping[str, ColumnType]:
        """Its columns."""
        return columns_of(self.metadata.schema())

    @property
    def names(self) -> set[str]:
        """The names of all files that it consists of."""
        snapshot = self.metadata.current_snapshot()
        lists = [snapshot.manifest_list] if snapshot is not None else []
        return {self.location, *lists, *(one.file.manifest_path for one in self.manifests), *self.files} - {""}


def read(storage: Storage, location: str) -> LakeTable:
    """A table by its metadata file."""
    return LakeTable(storage, _of_version(FromInputFile.table_metadata(storage.io.new_input(location))), location)


def new(storage: Storage, schema_name: str, name: str, schema: Schema) -> LakeTable:
    """A table that nothing is written of yet; tables of events have partitions by day, the archive also by source."""
    spec = UNPARTITIONED_PARTITION_SPEC
    if is_event_table(name, columns_of(schema)):
        spec = by_day_and_source(schema) if schema_name == archive.SCHEMA else by_day(schema)
    place = f"{storage.location}/{schema_name}/{name}-{uuid.uuid4().hex[:8]}"
    metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, place, {"write.parquet.compression-codec": "zstd"})
    return LakeTable(storage, _of_version(metadata), "", ())


def next_of(storage: Storage, table: LakeTable, schema: Schema, added: Sequence[DataFile], removed: Iterable[str]) -> LakeTable:
    """Writes what the next commit of a table consists of beside its data files; it is the table's once the catalog names it.

    Args:
        storage: where.
        table: as it is.
        schema: its schema from now on.
        added: new data files.
        removed: names of data files that are no longer the table's.
    """
    metadata, gone = table.metadata, set(removed)
    now_ms = max(time.time_ns() // 1_000_000, metadata.last_updated_ms)
    changes: dict[str, Any] = {"last_updated_ms": now_ms}
    if schema is not metadata.schema():
        last = max([metadata.last_column_id, *schema.field_ids])
        changes |= {"schemas": [schema], "current_schema_id": schema.schema_id, "last_column_id": last}
    manifests: Sequence[Manifest] = table.manifests
    if added or gone:
        snapshot_id, sequence = secrets.randbits(62), metadata.last_sequence_number + 1
        commit = _Commit(storage, metadata, schema, snapshot_id, sequence)
        manifests = commit.manifests(manifests, added, gone)
        listed = commit.manifest_list(manifests)
        summary = Summary(Operation.OVERWRITE if gone else Operation.APPEND, **_totals(added, gone, manifests))
        snapshot = Snapshot.model_validate(
            {
                "snapshot-id": snapshot_id,
                "sequence-number": sequence,
                "timestamp-ms": now_ms,
                "manifest-list": listed,
                "summary": summary,
                "schema-id": schema.schema_id,
            }
        )
        changes |= {
            "last_sequence_number": sequence,
            "snapshots": [snapshot],
            "current_snapshot_id": snapshot_id,
            "refs": {_MAIN: SnapshotRef.model_validate({"snapshot-id": snapshot_id, "type": SnapshotRefType.BRANCH})},
            "snapshot_log": [SnapshotLogEntry.model_validate({"snapshot-id": snapshot_id, "timestamp-ms": now_ms})],
        }
    elif metadata.snapshots and "schemas" in changes:  # the snapshot names a schema that is no longer listed
        current = metadata.snapshots[-1].model_copy(update={"schema_id": schema.schema_id})
        changes["snapshots"] = [current]
    following = metadata.model_copy(update=changes)
    location = f"{metadata.location}/metadata/{_number(table.location) + 1:05}-{uuid.uuid4()}.metadata.json"
    ToOutputFile.table_metadata(following, storage.io.new_output(location), overwrite=True)
    return LakeTable(storage, following, location, manifests)


@dataclass(frozen=True, slots=True)
class _Commit:
    """Writes manifests of one snapshot."""

    storage: Storage
    metadata: TableMetadataV2
    schema: Schema
    snapshot_id: int
    sequence: int

    def manifests(self, before: Sequence[Manifest], added: Sequence[DataFile], gone: set[str]) -> list[Manifest]:
        """The manifests from now on: those before, without what is gone, and one for what is new. Many small ones become one."""
        kept: list[Manifest] = []
        loose: list[ManifestEntry] = []
        is_full = len(before) >= _MAX_MANIFESTS
        for manifest in before:
            if gone and any(entry.data_file.file_path in gone for entry in manifest.entries):
                loose += [entry for entry in manifest.entries if entry.data_file.file_path not in gone]
            elif is_full and len(manifest.entries) < _FULL_MANIFEST:
                loose += manifest.entries
            else:
                kept.append(manifest)
        return [*kept, self._manifest(loose, added)] if loose or added else kept

    def manifest_list(self, manifests: Sequence[Manifest]) -> str:
        """Writes the list of manifests; its name."""
        name = f"{self.metadata.location}/metadata/snap-{self.snapshot_id}-{uuid.uuid4()}.avro"
        output = self.storage.io.new_output(name)
        with write_manifest_list(_VERSION, output, self.snapshot_id, None, self.sequence, _CODEC) as writer:
            if manifests:
                writer.add_manifests([manifest.file for manifest in manifests])
        return name

    def _manifest(self, loose: Sequence[ManifestEntry], added: Sequence[DataFile]) -> Manifest:
        spec: PartitionSpec = self.metadata.spec()
        output = self.storage.io.new_output(f"{self.metadata.location}/metadata/{uuid.uuid4()}-m0.avro")
        with write_manifest(_VERSION, spec, self.schema, output, self.snapshot_id, _CODEC) as writer:
            for entry in loose:
                writer.existing(entry)
            for file in added:
                writer.add(ManifestEntry.from_args(data_file=file))
        listed = writer.to_manifest_file()
        listed.sequence_number = self.sequence
        listed.min_sequence_number = min([self.sequence, *(entry.sequence_number or 0 for entry in loose)])
        return Manifest(listed, [*loose, *(self._entry(file) for file in added)])

    def _entry(self, file: DataFile) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.EXISTING,
            snapshot_id=self.snapshot_id,
            sequence_number=self.sequence,
            file_sequence_number=self.sequence,
            data_file=file,
        )


def _of_version(metadata: object) -> TableMetadataV2:
    if not isinstance(metadata, TableMetadataV2):
        raise Unavailable(DEPENDENCY, "a table of the lake has another version of the format than 2")
    return metadata


def _standing(entry: ManifestEntry) -> ManifestEntry:
    """An entry as later manifests have it."""
    entry.status = ManifestEntryStatus.EXISTING
    return entry


def _totals(added: Sequence[DataFile], gone: set[str], manifests: Sequence[Manifest]) -> dict[str, str]:
    files = [entry.data_file for manifest in manifests for entry in manifest.entries]
    return {
        "added-data-files": str(len(added)),
        "added-records": str(sum(file.record_count for file in added)),
        "deleted-data-files": str(len(gone)),
        "total-data-files": str(len(files)),
        "total-records": str(sum(file.record_count for file in files)),
    }


def _number(location: str) -> int:
    """The number of a metadata file; -1 before the first."""
    return int(location.rpartition("/")[2].partition("-")[0]) if location else -1
