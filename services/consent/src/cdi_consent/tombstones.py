"""Who is suppressed or erased, for the data path: nothing is paid while nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.tombstones import Digest, Digester, TombstoneFilter, covered
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

    async def covering(self, generation: int, events: Iterable[Sequence[Subject]], received_us: Callable[[int], int]) -> set[int]:
        """The places of the events that go nowhere.

        Args:
            generation: of the tombstones that count.
            events: the subjects of each event, all of one workspace.
            received_us: when the event at a place was received; asked only of those whose subjects have a tombstone.

        Raises:
            Unavailable: the database does not answer.
        """
        if generation > self._generation:
            await self._follow(generation)
        if not self._workspaces:
            return set()
        digests: dict[Subject, Digest] = {}
        suspects: list[tuple[int, str, list[Digest]]] = []
        for place, subjects in enumerate(events):
            if subjects and subjects[0][0] in self._workspaces:
                own = [
                    digests[subject] if subject in digests else digests.setdefault(subject, self._digest(subject)) for subject in subjects
                ]
                if suspected := [digest for digest in own if digest in self._filter]:
                    suspects.append((place, subjects[0][0], suspected))
        if not suspects:
            return set()
        found = await self._store.found([(workspace_id, digest) for _, workspace_id, own in suspects for digest in own])
        return covered([(place, own, received_us(place)) for place, _, own in suspects], found)

    async def _follow(self, generation: int) -> None:
        """Takes over what was written since."""
        async with self._following:
            if generation <= self._generation:
                return
            async for workspace_id, digest in self._store.since(self._generation):
                self._workspaces.add(workspace_id)
                self._filter.add(digest)
            self._generation = generation
