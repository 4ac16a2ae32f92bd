"""Who is suppressed or erased, for the data path: nothing is paid while nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.known import Known, KnownSubjects
from cdi_consent.domain.tombstones import Digester, TombstoneFilter, covered
from cdi_consent.ports import TombstoneReader


class Tombstones:
    """Knows of each id whether it may have a tombstone, and asks the store about those that may.

    What it knows follows the **generation** of the tombstones, which a batch reads with what is in force: a tombstone that was committed
    before the batch is seen by it, on every replica.
    """

    def __init__(self, store: TombstoneReader, digest: Digester) -> None:
        self._store = store
        self._digest = digest
        self._filter = TombstoneFilter()
        self._workspaces: set[str] = set()
        self._generation = 0
        self._following = asyncio.Lock()

    async def covering(
        self, generation: int, known: KnownSubjects, events: Sequence[Sequence[Subject]], received_us: Callable[[int], int]
    ) -> set[int]:
        """The places of the events that go nowhere.

        Args:
            generation: of the tombstones that count.
            known: what is remembered of the subjects; it is noted there whether they may have a tombstone.
            events: the subjects of each event, all of one workspace.
            received_us: when the event at a place was received; asked only of those whose subjects have a tombstone.

        Raises:
            Unavailable: the database does not answer.
        """
        if generation > self._generation:
            await self._follow(generation)
        if not self._workspaces:
            return set()
        buried = {subject: self._digest(subject) for subject, own in known.items() if self._may_be_buried(subject, own)}
        if not buried:
            return set()
        found = await self._store.found([(subject[0], digest) for subject, digest in buried.items()])
        places = [(place, [buried[one] for one in own if one in buried]) for place, own in enumerate(events)]
        return covered([(place, own, received_us(place)) for place, own in places if own], found)

    def _may_be_buried(self, subject: Subject, own: Known) -> bool:
        """Whether a subject may have a tombstone; found out once in each generation, because a digest takes its time."""
        if own.buried_in != self._generation:
            own.may_be_buried = subject[0] in self._workspaces and self._digest(subject) in self._filter
            own.buried_in = self._generation
        return own.may_be_buried

    async def _follow(self, generation: int) -> None:
        """Takes over what was written since."""
        async with self._following:
            if generation <= self._generation:
                return
            async for workspace_id, digest in self._store.since(self._generation):
                self._workspaces.add(workspace_id)
                self._filter.add(digest)
            self._generation = generation
