"""Warehouse documents: which events of a workspace are loaded, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition, InvalidArgument
from cdi_warehouse_loader.domain import archive
from cdi_warehouse_loader.domain.load import DEFAULT_TARGET, Target, Targets
from cdi_warehouse_loader.domain.withholding import NO_NEEDS, NeedsOf, needing

RESERVED_SCHEMAS: Final = frozenset({"_cdi", archive.SCHEMA, "information_schema", "pg_catalog", "temp", "system", "memory", "warehouse"})
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Document:
    """One warehouse of a workspace.

    Attributes:
        workspace_id: the workspace.
        name: of the warehouse.
        purposes: all must be granted for an event to be loaded; sorted.
        schema: schema of its tables.
        version: rises with every change, from 1.
        frozen_sources: sources whose events add nothing to the tables; sorted.
    """

    workspace_id: str
    name: str
    purposes: tuple[str, ...]
    schema: str
    version: int = 0
    frozen_sources: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """As the place that rows go to."""
        return Target(self.name, self.schema, frozenset(self.purposes), frozen_sources=frozenset(self.frozen_sources))


def check(document: Document) -> None:
    """Whether a document can stand by itself.

    Raises:
        InvalidArgument: a field breaks its rule.
    """
    violations: list[tuple[str, str]] = []
    if not document.workspace_id:
        violations.append(("warehouse.workspace_id", "must not be empty"))
    if not _NAME.fullmatch(document.name):
        violations.append(("warehouse.name", "lower-case letters, digits, _ and -, starting with a letter, at most 63"))
    if not _SCHEMA.fullmatch(document.schema) or document.schema in RESERVED_SCHEMAS:
        violations.append(("warehouse.schema", "lower-case letters, digits and _, at most 63, and not a schema of the system"))
    for field, names in (("warehouse.purposes", document.purposes), ("warehouse.frozen_sources", document.frozen_sources)):
        if "" in names:
            violations.append((field, "must not hold an empty name"))
    if violations:
        raise InvalidArgument("the warehouse breaks its rules", field_violations=violations)


def succeed(wanted: Document, stored: Sequence[Document]) -> Document:
    """The document as it will be stored, with its version; the stored one itself when nothing changes.

    Raises:
        InvalidArgument: a field breaks its rule.
        FailedPrecondition: another warehouse of the workspace has the schema, and rows would stand in it twice.
    """
    check(wanted)
    own = [document for document in stored if document.workspace_id == wanted.workspace_id]
    other = next((document for document in own if document.schema == wanted.schema and document.name != wanted.name), None)
    if other is not None:
        raise FailedPrecondition(
            error_pb2.ERROR_REASON_ALREADY_EXISTS,
            "another warehouse of the workspace is loaded into this schema",
            metadata={"resource": "warehouse", "name": other.name},
        )
    before = next((document for document in own if document.name == wanted.name), None)
    if before is None:
        return replace(wanted, version=1)
    return before if replace(wanted, version=before.version) == before else replace(wanted, version=before.version + 1)


def targets(
    documents: Iterable[Document], needs: Mapping[str, NeedsOf] = NO_NEEDS, others: Sequence[Target] = (DEFAULT_TARGET,)
) -> Targets:
    """Where the events of each workspace go.

    Args:
        documents: of all workspaces.
        needs: by workspace, what its purposes say of warehouses.
        others: targets of a workspace without a document.
    """
    found: dict[str, list[Target]] = {}
    for document in documents:
        found.setdefault(document.workspace_id, []).append(document.target)
    for workspace_id, needed in needs.items():
        found[workspace_id] = [needing(target, needed.get(target.warehouse)) for target in found.get(workspace_id, others)]
    return Targets(found, others)
