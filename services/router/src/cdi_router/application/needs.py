"""Which purposes destinations need beside those of their own documents: a purpose may name destinations, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from cdi_kernel.faults import Transient
from cdi_router.domain.destination import Destination
from cdi_router.ports import PurposeReader


class Needs:
    """What the purposes of each workspace say of destinations, at most one ``refresh`` behind while consent answers.

    A workspace is asked about when it is first met. Until then nobody knows what its destinations need, and nothing may be delivered.
    """

    def __init__(self, reader: PurposeReader) -> None:
        self._reader = reader
        self._known: dict[str, Mapping[str, tuple[str, ...]]] = {}

    def of(self, workspace_id: str, destination: str) -> tuple[str, ...] | None:
        """The purposes that name a destination; ``None`` while that is not known."""
        needed = self._known.get(workspace_id)
        return None if needed is None else needed.get(destination, ())

    async def refresh(self, workspace_ids: Collection[str]) -> None:
        """Asks about these workspaces. While consent is away what is known stays."""
        try:
            for workspace_id in workspace_ids:
                self._known[workspace_id] = await self._reader.needed(workspace_id)
        except Transient:
            return


def needing(destination: Destination, needed: Collection[str]) -> Destination:
    """A destination with the purposes that name it: it needs all of them, and its own."""
    return replace(destination, purposes=tuple(dict.fromkeys((*destination.purposes, *needed))))
