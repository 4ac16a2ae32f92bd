"""What a batch or a request changed: what has to be written, and what the rest of the suite is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cdi_identity.domain.decisions import Cause, Decision
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.domain.traits import Trait

if TYPE_CHECKING:
    from cdi_identity.domain.graph import Profile


@dataclass(frozen=True, slots=True)
class Merge:
    """Two profiles became one; ``decision`` is the place of the decision among those of the batch."""

    workspace_id: str
    canonical_profile_id: str
    merged_profile_id: str
    message_id: str
    decision: int


class CanonicalEntry(NamedTuple):
    """Which profile a profile is part of from now on. A tuple, as what follows, because a batch makes thousands."""

    workspace_id: str
    profile_id: str
    canonical_profile_id: str
    cause: Cause


class TraitEntry(NamedTuple):
    """A trait of a person that has another value now; ``None``: the person no longer has it."""

    workspace_id: str
    profile_id: str
    name: str
    trait: Trait | None


@dataclass(slots=True)
class Changes:
    """What a batch changed, in the order in which it has to become visible.

    Attributes:
        created: fresh profiles, oldest first; some may have been merged within the batch.
        identifiers: new identifiers with the profile they were first seen on and the place of the decision that added them.
        merges: all merges, in order.
        moved: stored profiles that were merged.
        updated: stored profiles with other traits of their own or more parts.
        decisions: in order.
        canonicals: in order; for every merge the parts of the merged profile are entered again.
        learned: profiles that are canonical in the end, with the names of the traits that have another value.
        reconciled: pairs of groups of profiles whose separations end.
    """

    created: list[Profile] = field(default_factory=list)
    identifiers: list[tuple[Identifier, Profile, int]] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    moved: list[Profile] = field(default_factory=list)
    updated: list[Profile] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    canonicals: list[CanonicalEntry] = field(default_factory=list)
    learned: list[tuple[Profile, Iterable[str]]] = field(default_factory=list)
    reconciled: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.created or self.identifiers or self.merges or self.updated or self.decisions)

    def traits(self) -> Iterator[TraitEntry]:
        """The traits of persons that have another value now; thousands in a batch, so each is made when it is its turn."""
        for profile, names in self.learned:
            workspace_id, profile_id, values = profile.workspace_id, profile.profile_id, profile.traits
            for name in names:
                yield TraitEntry(workspace_id, profile_id, name, values[name])
