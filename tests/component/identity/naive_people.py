"""The rules of identity once more, as plainly as they can be said: no working copy, no batches, no SQL. Slow, and obviously right.

Shares nothing with the product. Profiles are numbered in the order in which they are made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Name = tuple[str, str]
"""Type and value of an identifier."""


@dataclass
class Naive:
    """People as sets of profiles.

    Attributes:
        origin: the profile that each identifier was first seen on.
        parent: the profile that each profile was merged into; itself if it stands alone.
        apart: pairs of profiles that operators separated.
        limits: by type; 5 for any other.
    """

    limits: dict[str, int]
    priorities: Sequence[str] = ("user_id", "email")
    origin: dict[Name, int] = field(default_factory=dict)
    parent: dict[int, int] = field(default_factory=dict)
    apart: set[frozenset[int]] = field(default_factory=set)

    def person(self, profile: int) -> int:
        return profile if self.parent[profile] == profile else self.person(self.parent[profile])

    def members(self, person: int) -> set[int]:
        return {profile for profile in self.parent if self.person(profile) == person}

    def names(self, person: int) -> set[Name]:
        return {name for name, profile in self.origin.items() if self.person(profile) == person}

    def event(self, names: Iterable[Name]) -> int:
        """Returns the person of the event."""
        order = [*self.priorities, *sorted({kind for kind, _ in names})]
        kept = sorted(dict.fromkeys(names), key=lambda name: order.index(name[0]))
        while self._forbidden(kept):
            kept.pop()
        persons = {self.person(self.origin[name]) for name in kept if name in self.origin}
        if not persons:
            persons = {len(self.parent)}
            self.parent[len(self.parent)] = len(self.parent)
        oldest = min(persons)
        for person in persons:
            self.parent[person] = oldest
        for name in kept:
            self.origin.setdefault(name, oldest)
        return oldest

    def merge(self, one: int, other: int) -> None:
        one, other = sorted((self.person(one), self.person(other)))
        ours, theirs = self.members(one), self.members(other)
        self.parent[other] = one
        if one != other:
            self.apart = {pair for pair in self.apart if not (pair & ours and pair & theirs)}

    def undo(self, merged: int) -> bool:
        """Returns whether there was a merge to undo."""
        parent, person = self.parent[merged], self.person(merged)
        if parent == merged:
            return False
        self.parent[merged] = merged
        self.apart |= {frozenset((merged, parent)), frozenset((merged, person))}
        return True

    def take(self, person: int, names: Sequence[Name]) -> bool:
        """Returns whether the names could be taken."""
        if not names or not set(names) < self.names(person):
            return False
        sides = {person} | {self.origin[name] for name in names}
        sides |= {side for pair in self.apart if pair & self.members(person) for side in pair - self.members(person)}
        fresh = len(self.parent)
        self.parent[fresh] = fresh
        self.origin.update(dict.fromkeys(names, fresh))
        self.apart |= {frozenset((side, fresh)) for side in sides}
        return True

    def _forbidden(self, names: Sequence[Name]) -> bool:
        persons = {self.person(self.origin[name]) for name in names if name in self.origin}
        new = {name for name in names if name not in self.origin}
        if len(persons) + len(new) < 2:
            return False
        if any({self.person(side) for side in pair} <= persons and len({self.person(side) for side in pair}) == 2 for pair in self.apart):
            return True
        if len(persons) > 1 and sum(len(self.members(person)) for person in persons) - 1 > 100:
            return True
        every = new.union(*(self.names(person) for person in persons))
        kinds = [kind for kind, _ in every]
        if len(every) > 1_000:
            return True
        return any(
            kinds.count(kind) > self.limits.get(kind, 5)
            and all(sum(name[0] == kind for name in self.names(person)) != kinds.count(kind) for person in persons)
            for kind in set(kinds)
        )
