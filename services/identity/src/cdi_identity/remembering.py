"""What this replica remembers of known people: the profile of events that bring the same identifiers again.

Safe with any number of replicas, because nothing is answered from memory alone. Every batch reads, in the statement that it makes anyway,
the merges of its workspaces since the last one that this replica has heard of, and how often their profiles were separated. Merges rename
what is remembered; a separation (a split, an erasure) ends all that is remembered of its workspace, another run of Postgres all of it. So
an answer is as of the snapshot of that statement, like one that was read. The numbers of a workspace's merges rise in the order of its
commits: its lock is held then.

What is remembered are texts only. A tuple for every identifier would be looked at by the garbage collection again and again while new ones
come: a tenth of the service's CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Final

from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import Lookup

CAPACITY: Final = 200_000
"""Sets of identifiers that are remembered: at most; at least half as many of the last ones. About 75 MB."""

MAX_WORKSPACES: Final = 1_000
"""Workspaces that something is remembered of."""

MAX_RENAMED: Final = 10_000
"""Merged profiles of one workspace whose successors are remembered; after that it is begun anew."""

_MAX_KEY_LENGTH: Final = 400
"""Characters of a set of identifiers; longer ones are not remembered."""

_NUMBERS: Final = count()
_NOBODY: Final = (None, "")


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

    def key(self, identifiers: Iterable[Identifier]) -> str:
        """A text that stands for identifiers; none of their parts has a NUL character."""
        return self.number + "\0".join(chain.from_iterable(identifiers))

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
    strangers: Mapping[int, tuple[_Workspace, str]] = field(default_factory=dict)

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
    """Profiles by the identifiers of an event. Two generations: what is asked for goes on into the younger one."""

    def __init__(self) -> None:
        # Another server, or the same one after a crash, may lack the commits that came last, or be put back to an earlier state.
        self._server = ""
        self._workspaces: dict[str, _Workspace] = {}
        self._young: dict[str, str] = {}
        self._old: dict[str, str] = {}

    def recall(self, workspace_ids: Iterable[str], events: Mapping[int, tuple[Identifier, ...]]) -> Recalled:
        """What is remembered of events, by their places."""
        known = {workspace_id: self._workspaces[workspace_id] for workspace_id in workspace_ids if workspace_id in self._workspaces}
        owners, strangers = {}, {}
        for index, identifiers in events.items():
            workspace = known.get(identifiers[0][0])
            if workspace is None:
                continue
            key = workspace.key(identifiers)
            owner = self._young.get(key)
            if owner is None:
                owner = self._old.get(key)
                if owner is None:
                    strangers[index] = workspace, key
                    continue
                self._keep(key, owner)
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
            elif merges.successors is None or len(known.successors) >= MAX_RENAMED:
                self._begin(workspace_id, standing.splits, merges.last)
            elif since is not None and since <= known.last:
                known.successors.update(merges.successors)
                known.last = merges.last

    def learn(self, recalled: Recalled, owned: Iterable[tuple[int, str]], lookup: Lookup) -> None:
        """Remembers to whom the identifiers of an event, by its place, all belonged in a snapshot that was heard of."""
        current = {
            known
            for workspace_id, standing in lookup.standings.items()
            if (known := self._workspaces.get(workspace_id)) is not None
            and known.splits == standing.splits
            and known.first <= lookup.merges[workspace_id].last
        }
        for index, owner in owned:
            workspace, key = recalled.strangers.get(index, _NOBODY)
            # Another one if all of it was forgotten since.
            if workspace in current and len(key) <= _MAX_KEY_LENGTH:
                self._keep(key, owner)

    def _begin(self, workspace_id: str, splits: int, last: int) -> None:
        self._workspaces.pop(workspace_id, None)
        if len(self._workspaces) >= MAX_WORKSPACES:
            del self._workspaces[next(iter(self._workspaces))]
        self._workspaces[workspace_id] = _Workspace(splits, last, last)

    def _keep(self, key: str, owner: str) -> None:
        if len(self._young) >= CAPACITY // 2:
            self._old, self._young = self._young, {}
        self._young[key] = owner
