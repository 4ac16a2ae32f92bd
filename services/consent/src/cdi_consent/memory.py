"""What is in force of the people asked about lately, never older than the question.

Before each batch the store is asked who has changed since it was asked before, on whatever replica. They are forgotten, and read again with
those of whom nothing is remembered. So a decision that was answered holds for the next batch, as if nothing were remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cdi_consent.domain.decisions import UNDECIDED, Subject
from cdi_consent.domain.known import Known, known_of
from cdi_consent.ports import Looks, Moment


class Recollection(NamedTuple):
    """What is known of some subjects, and the generation of the tombstones then."""

    known: dict[Subject, Known]
    generation: int


class Memory:
    """Remembers subjects, those that were asked about last.

    Args:
        looks: the store.
        size: about how many subjects. They stand in two halves: whoever is asked about moves to the newer one, and when that is full the
            older one is forgotten.
    """

    def __init__(self, looks: Looks, size: int) -> None:
        self._looks = looks
        self._half = size // 2
        self._newer: dict[Subject, Known] = {}
        self._older: dict[Subject, Known] = {}
        self._by_digest: dict[bytes, Subject] = {}
        self._since: Moment | None = None
        # One look at a time: what a later one has shown as changed must not be brought back by an earlier one.
        self._looking = asyncio.Lock()

    async def recollect(self, subjects: Collection[Subject]) -> Recollection:
        """What is in force of these subjects, with all that was committed before the call. Raises ``Unavailable``."""
        async with self._looking:
            newer = self._newer
            known = {subject: own for subject in subjects if (own := newer.get(subject) or self._refreshed(subject)) is not None}
            missing = [subject for subject in subjects if subject not in known] if len(known) < len(subjects) else []
            generation, stale = await self._look(missing, known)
            if stale:
                await self._look(stale, known)
        return Recollection(known, generation)

    async def _look(self, subjects: Sequence[Subject], known: dict[Subject, Known]) -> tuple[int, list[Subject]]:
        """Reads subjects into ``known``; the generation of the tombstones, and which of those that were there have changed."""
        look = await self._looks.look(subjects, self._since)
        stale = [subject for subject in self._forget(look.changed) if subject in known]
        if len(self._newer) + len(subjects) > self._half:
            self._drop_older()
        for subject in subjects:
            known[subject] = self._newer[subject] = own = known_of(subject, look.standings.get(subject, UNDECIDED))
            self._by_digest[own.digest] = subject
        self._since = look.moment
        return look.generation, stale

    def _refreshed(self, subject: Subject) -> Known | None:
        """Moves a subject from the older half to the newer one."""
        own = self._older.pop(subject, None)
        if own is not None:
            self._newer[subject] = own
        return own

    def _forget(self, changed: Collection[bytes] | None) -> Collection[Subject]:
        """Forgets subjects by digest, or all; gives those that were remembered."""
        if changed is None:
            forgotten = [*self._newer, *self._older]
            self._newer, self._older, self._by_digest = {}, {}, {}
            return forgotten
        subjects = [subject for digest in changed if (subject := self._by_digest.pop(digest, None)) is not None]
        for subject in subjects:
            self._newer.pop(subject, None)
            self._older.pop(subject, None)
        return subjects

    def _drop_older(self) -> None:
        for own in self._older.values():
            del self._by_digest[own.digest]
        self._newer, self._older = {}, self._newer
