"""Taking a person apart again: by undoing a merge, or by taking identifiers out.

A merge moves nothing but a pointer and the mappings: every identifier keeps the profile that it was first seen on, every profile keeps the
traits that its own events brought. So undoing a merge is moving them back. Taking identifiers out makes a new profile of them; a trait
goes with the strongest identifier of the event that brought it.

In both cases the two sides are kept apart from then on: an event with identifiers of both leaves out the weaker one (``resolution``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cdi_identity.domain import traits
from cdi_identity.domain.changes import TraitEntry
from cdi_identity.domain.identifiers import Identifier, fingerprint
from cdi_identity.domain.traits import Traits


class NotPossible(Exception):
    """The profile cannot be separated in this way; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the profiles that make a person.

    Attributes:
        profile_id: its id.
        ordinal: the lower, the older.
        document: the traits that its own events brought.
        parent_id: the profile that it was merged into; ``None`` for the canonical one.
    """

    profile_id: str
    ordinal: int
    document: bytes
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """A person with all that it is made of.

    Attributes:
        workspace_id: its workspace.
        profile_id: the canonical id.
        parts: all of its profiles, the canonical one included, oldest first.
        origins: the profile that each identifier was first seen on.
        foes: ids of profiles that an operator separated from it.
    """

    workspace_id: str
    profile_id: str
    parts: Sequence[Part]
    origins: Mapping[Identifier, str]
    foes: frozenset[str] = frozenset()


@dataclass(slots=True)
class Separation:
    """What separating a person changes.

    Attributes:
        workspace_id: its workspace.
        remaining_id: the profile that stays.
        separated_id: the profile that leaves.
        fresh: it has to be made.
        part_ids: profiles whose canonical profile is the separated one from now on, that one included.
        identifiers: what leaves.
        remaining_merges: profiles that are part of what stays.
        documents: other traits, by profile.
        apart: pairs of profiles that are not to be merged by evidence any more.
        traits: what is to be told of the traits of both.
    """

    workspace_id: str
    remaining_id: str
    separated_id: str
    fresh: bool
    part_ids: Sequence[str]
    identifiers: Sequence[Identifier]
    remaining_merges: int
    documents: dict[str, bytes] = field(default_factory=dict)
    apart: Sequence[tuple[str, str]] = ()
    traits: Sequence[TraitEntry] = ()


def undo(whole: Whole, merged_id: str) -> Separation:
    """Undoes the merge that made ``merged_id`` a part of the person, with everything that was merged into that profile before.

    Raises:
        NotPossible: it is no merged part of this person.
    """
    parents = {part.profile_id: part.parent_id for part in whole.parts}
    parent = parents.get(merged_id)
    if parent is None:
        raise NotPossible("no profile of that id was merged into this one")
    leaving = [part for part in whole.parts if _descends(part.profile_id, merged_id, parents)]
    ids = [part.profile_id for part in leaving]
    gone = set(ids)
    staying = [part for part in whole.parts if part.profile_id not in gone]
    before = traits.combined(part.document for part in whole.parts)
    return Separation(
        whole.workspace_id,
        whole.profile_id,
        merged_id,
        False,
        ids,
        [identifier for identifier, origin in whole.origins.items() if origin in gone],
        len(staying) - 1,
        {},
        [(other, merged_id) for other in dict.fromkeys((whole.profile_id, parent))],
        _told(
            whole, before, traits.combined(part.document for part in staying), merged_id, traits.combined(part.document for part in leaving)
        ),
    )


def take(whole: Whole, identifiers: Collection[Identifier], fresh_id: str) -> Separation:
    """Makes a profile of some identifiers of a person.

    Raises:
        NotPossible: one of them is not the person's, or none would be left.
    """
    leaving = dict.fromkeys(identifiers)
    if not leaving or any(identifier not in whole.origins for identifier in leaving):
        raise NotPossible("an identifier is not one of the profile's")
    if len(leaving) == len(whole.origins):
        raise NotPossible("no identifier would be left")
    fingerprints = frozenset(map(fingerprint, leaving))
    documents: dict[str, bytes] = {}
    staying: list[bytes] = []
    brought: Traits = {}
    for part in whole.parts:
        stay, leave = traits.taken(traits.from_document(part.document), fingerprints)
        staying.append(traits.to_document(stay))
        if leave:
            documents[part.profile_id] = staying[-1]
            traits.learn(brought, leave)
    documents[fresh_id] = traits.to_document(brought)
    sides = dict.fromkeys((whole.profile_id, *(whole.origins[identifier] for identifier in leaving), *sorted(whole.foes)))
    return Separation(
        whole.workspace_id,
        whole.profile_id,
        fresh_id,
        True,
        [fresh_id],
        list(leaving),
        len(whole.parts) - 1,
        documents,
        [(side, fresh_id) for side in sides],
        _told(whole, traits.combined(part.document for part in whole.parts), traits.combined(staying), fresh_id, brought),
    )


def _descends(profile_id: str | None, ancestor_id: str, parents: Mapping[str, str | None]) -> bool:
    while profile_id is not None:
        if profile_id == ancestor_id:
            return True
        profile_id = parents.get(profile_id)
    return False


def _told(whole: Whole, before: Traits, remaining: Traits, separated_id: str, separated: Traits) -> list[TraitEntry]:
    """What the person has lost or has another value of, and all that the separated profile has."""
    workspace_id, profile_id = whole.workspace_id, whole.profile_id
    return [
        *(TraitEntry(workspace_id, profile_id, name, remaining.get(name)) for name in before if remaining.get(name) != before[name]),
        *(TraitEntry(workspace_id, separated_id, name, trait) for name, trait in separated.items()),
    ]
