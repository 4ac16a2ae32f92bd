"""The warehouses that this loader is connected to. Each has its own threads, position and pace, and is up or down by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import NotFound
from cdi_warehouse_loader.application.access import Access


@dataclass(frozen=True, slots=True)
class Connection:
    """One warehouse.

    Attributes:
        name: by which documents and queries name it.
        kind: of the warehouse.
        reader: durable name of its readers: the position of a warehouse in the streams belongs to it alone.
        access: to the warehouse.
    """

    name: str
    kind: str
    reader: str
    access: Access


class Connections:
    """All connections of a loader.

    Args:
        connections: at least one. The first is meant where none is named, and takes the events of workspaces without a document.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = {connection.name: connection for connection in connections}
        self.first = connections[0]

    def __iter__(self) -> Iterator[Connection]:
        """In the order of the settings."""
        return iter(self._connections.values())

    def named(self, name: str) -> Connection:
        """A connection; the first one for the empty name.

        Raises:
            NotFound: there is none of the name.
        """
        if not name:
            return self.first
        if name not in self._connections:
            raise NotFound(
                error_pb2.ERROR_REASON_NOT_FOUND,
                f"the loader has no connection of this name, but {', '.join(self._connections)}",
                metadata={"resource": "connection", "name": name},
            )
        return self._connections[name]
