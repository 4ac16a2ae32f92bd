"""What privacy orders need of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cdi_identity.domain.identifiers import Identifier


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a privacy order concerns.

    Attributes:
        workspace_id: the workspace.
        identifiers: all, of any type.
        profile_ids: all, merged ones too, as they were at the order's time; none: whatever the identifiers lead to.
        before_us: the order's time, microseconds since 1970.
        tombstones: the generation of consent's tombstones that the order's are of.
    """

    workspace_id: str
    identifiers: Sequence[Identifier]
    profile_ids: Sequence[str]
    before_us: int
    tombstones: int = 0


class PersonStore(Protocol):
    """All that is stored of people. Both raise a ``Transient`` fault when the store does not answer."""

    async def erase(self, people: Sequence[Person], now_us: int) -> Sequence[Mapping[str, int]]:
        """Deletes people for good, and tells which profiles that touched; per person the rows by table. Done again it finds nothing.

        Args:
            people: who.
            now_us: the time, microseconds since 1970.
        """
        ...

    def held(self, person: Person) -> AsyncIterator[tuple[str, Sequence[Mapping[str, object]]]]:
        """All that is stored of a person, by table, in pieces."""
        ...
