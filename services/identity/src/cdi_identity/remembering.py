"""What this replica remembers of known people: the profile of events that bring the same identifiers again.

Safe with any number of replicas, because nothing is answered from memory alone. Every batch reads, in the statement that it makes anyway,
the merges of its workspaces since the last one that this replica has heard of, and how often their profiles were separated. Merges rename
what is remembered; a separation (a split, an erasure) ends all that is remembered of its workspace, another run of Postgres all of it. So
an answer is as of the snapshot of that statement, like one that was read. The numbers of a workspace's merges rise in the order of its
commits: its lock is held then.

What is remembered is a digest of the identifiers, not these themselves: two million of them fit into 86 MB (``owner_cache``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Final

from cdi_identity.domain.identifiers import Identifier
from cdi_identity.owner_cache import DIGEST_BYTES, OwnerCache
from cdi_identity.ports import Lookup

CAPACITY: Final = 2_400_000
"""Sets of identifiers that are remembered, at most: 36 bytes each."""

MAX_WORKSPACES: Final = 1_000
"""Workspaces that something is remembered of."""

MAX_RENAMED: Final = 50_000
"""Merged profiles whose successors are remembered, of all workspaces: about 15 MB. After that the workspace with most is begun anew."""

_JOINED: Final = "\0".join
_NUMBERS: Final = count()
_NOBODY: Final = (None, b"")


@dataclass(slots=True, eq=False)
class _Workspace:
    """What holds for all that is remembered of a workspace.

    Attributes:
        number: of no other one, so that nothing is found of what was remembered before all of it was forgotten.
        splits: how often its profiles had been separated.
        first: number of the last merge before anything was remembered.
        last: of the last one that was heard of.
        successors: the profile that each merged one became part of, of the merges after ``first``.
    """

    splits: int
    first: int
    last: int
    successors: dict[str, str] = field(default_factory=dict)
    number: str = field(default_factory=lambda: f"{next(_NUMBERS)}\0")

    def key(self, identifiers: Iterable[Identifier]) -> bytes:
        """A digest that stands for identifiers, of which no part has a NUL character.

        Nobody can make a second set with the same digest: that keeps one person's events from another's profile.
        """
        return blake2b((self.number + _JOINED(map(_JOINED, identifiers))).encode(), digest_size=DIGEST_BYTES).digest()

    def canonical(self, profile_id: str) -> str:
        """The profile that stands for it now."""
        while (successor := self.successors.get(profile_id)) is not None:
            profile_id = successor
        return profile_id


@dataclass(frozen=True, slots=True)
class Recalled:
    """Answers that count only together with the statement that follows.

    Attributes:
        owners: profile by place of the event, as of ``since``.
        since: of each workspace, the last merge that these answers take in; nothing is remembered of those that are missing.
        splits: of the same workspaces, how often their profiles had been separated.
        server: the run of Postgres that said all of it.
        strangers: by place, under what the other events of these workspaces can be remembered.
    """

    owners: Mapping[int, str]
    since: Mapping[str, int]
    splits: Mapping[str, int]
    server: str
    strangers: Mapping[int, tuple[_Workspace, bytes]] = field(default_factory=dict)

    def confirmed(self, lookup: Lookup) -> dict[int, str] | None:
        """The answers as of a later snapshot; ``None`` if they hold no more."""
        if not self.owners:
            return {}
        if lookup.server != self.server:
            return None
        for workspace_id, standing in lookup.standings.items():
            separated = self.splits.get(workspace_id, standing.splits) != standing.splits
            if separated or lookup.merges[workspace_id].successors is None:
                return None
        renamed = {merged: into for merges in lookup.merges.values() for merged, into in (merges.successors or {}).items()}
        if not renamed:
            return dict(self.owners)
        current = _Workspace(0, 0, 0, renamed)
        return {index: current.canonical(owner) for index, owner in self.owners.items()}


class KnownPeople:
    """Profiles by the identifiers of an event.

    Args:
        capacity: sets of identifiers that are remembered.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        # Another server, or the same one after a crash, may lack the commits that came last, or be put back to an earlier state.
        self._server = ""
        self._workspaces: dict[str, _Workspace] = {}
        self._owners = OwnerCache(capacity)

    def recall(self, workspace_ids: Iterable[str], events: Mapping[int, tuple[Identifier, ...]]) -> Recalled:
        """What is remembered of events, by their places."""
        known = {workspace_id: self._workspaces[workspace_id] for workspace_id in workspace_ids if workspace_id in self._workspaces}
        asked = [
            (index, workspace, workspace.key(identifiers))
            for index, identifiers in events.items()
            if (workspace := known.get(identifiers[0][0])) is not None
        ]
        owners, strangers = {}, {}
        for (index, workspace, key), owner in zip(asked, self._owners.find([key for _, _, key in asked]), strict=True):
            if owner is None:
                strangers[index] = workspace, key
            else:
                owners[index] = workspace.canonical(owner) if workspace.successors else owner
        return Recalled(
            owners,
            {workspace_id: workspace.last for workspace_id, workspace in known.items()},
            {workspace_id: workspace.splits for workspace_id, workspace in known.items()},
            self._server,
            strangers,
        )

    def hear(self, recalled: Recalled, lookup: Lookup) -> None:
        """Takes in what a snapshot says of its workspaces. Snapshots may come in any order."""
        if lookup.server != self._server:
            self._server = lookup.server
            self._workspaces.clear()
        for workspace_id, standing in lookup.standings.items():
            merges, known = lookup.merges[workspace_id], self._workspaces.get(workspace_id)
            since = recalled.since.get(workspace_id)
            if known is None or standing.splits > known.splits:
                self._begin(workspace_id, standing.splits, merges.last)
            elif standing.splits < known.splits or merges.last <= known.last:
                continue
            elif merges.successors is None:
                self._begin(workspace_id, standing.splits, merges.last)
            elif since is not None and since <= known.last:
                known.successors.update(merges.successors)
                known.last = merges.last
                self._forget_renamed()

    def learn(self, recalled: Recalled, owned: Iterable[tuple[int, str]], lookup: Lookup) -> None:
        """Remembers to whom the identifiers of an event, by its place, all belonged in a snapshot that was heard of."""
        current = {
            known
            for workspace_id, standing in lookup.standings.items()
            if (known := self._workspaces.get(workspace_id)) is not None
            and known.splits == standing.splits
            and known.first <= lookup.merges[workspace_id].last
        }
        keys, owners = [], []
        for index, owner in owned:
            workspace, key = recalled.strangers.get(index, _NOBODY)
            # Another one if all of it was forgotten since.
            if workspace in current:
                keys.append(key)
                owners.append(owner)
        self._owners.keep(keys, owners)

    def _forget_renamed(self) -> None:
        if sum(len(workspace.successors) for workspace in self._workspaces.values()) > MAX_RENAMED:
            name, workspace = max(self._workspaces.items(), key=lambda entry: len(entry[1].successors))
            self._begin(name, workspace.splits, workspace.last)

    def _begin(self, workspace_id: str, splits: int, last: int) -> None:
        self._workspaces.pop(workspace_id, None)
        if len(self._workspaces) >= MAX_WORKSPACES:
            del self._workspaces[next(iter(self._workspaces))]
        self._workspaces[workspace_id] = _Workspace(splits, last, last)
