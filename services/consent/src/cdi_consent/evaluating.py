"""Evaluation of batches: what each event may be used for, after recording the answers that the events carry."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cdi_consent.application import PurposeBook
from cdi_consent.domain.decisions import Decided, Subject
from cdi_consent.domain.evaluation import Evaluation, Item, earlier_than_batch, evaluate
from cdi_consent.domain.known import KnownSubjects, recalled, remember
from cdi_consent.domain.purposes import SUPPRESSED, Outcome, Purposes
from cdi_consent.memory import Memory
from cdi_consent.ports import Clock, Ledger, Reading
from cdi_consent.tombstones import Tombstones


class Judged(NamedTuple):
    """What each event of a batch may be used for, as written, and the generation of the tombstones that counted; ``None``: none did."""

    answers: list[bytes]
    generation: int | None


@dataclass(frozen=True, slots=True)
class Evaluating:
    """Judges events, in words of its ports.

    Attributes:
        written: writes an outcome for the caller. What is remembered is the writing.
    """

    ledger: Ledger
    book: PurposeBook
    memory: Memory
    tombstones: Tombstones
    clock: Clock
    written: Callable[[Outcome], bytes]

    async def evaluate(self, items: Sequence[Item], received_us: Callable[[int], int]) -> Judged:
        """What each event may be used for. Of who is suppressed nothing is recorded.

        A batch without news costs one small statement and takes no lock. Events of whom all is remembered are judged as before; the others
        are judged, with all events of the same people if there is news. Then what is in force is read again under the lock of those whom it
        concerns and, if it is no longer the same, they are judged again: what is recorded is a change of what is in force at that moment.

        Args:
            items: the events.
            received_us: when the event at a place was received.
        """
        purposes = self.book.current
        subjects = dict.fromkeys([subject for item in items for subject in item.subjects])
        if not subjects:
            return Judged(list(map(self.written, evaluate(items, purposes, {}, (), self.clock()).outcomes)), None)
        known, generation = await self.memory.recollect(subjects)
        gone = await self.tombstones.covering(generation, known, [item.subjects for item in items], received_us)
        left = [item for place, item in enumerate(items) if place not in gone] if gone else items
        answers = recalled(left, purposes, known)
        unjudged = [place for place, answer in enumerate(answers) if answer is None]
        if unjudged:
            await self._judge(left, unjudged, purposes, known, answers)
        found = [answer for answer in answers if answer is not None]
        if gone:
            suppressed, judged = self.written(SUPPRESSED), iter(found)
            found = [suppressed if place in gone else next(judged) for place in range(len(items))]
        return Judged(found, generation)

    async def _judge(
        self, items: Sequence[Item], places: list[int], purposes: Purposes, known: KnownSubjects, answers: list[bytes | None]
    ) -> None:
        """Judges the events at these places, and those of the same people if there is news; fills in the answers."""
        standings = {subject: own.decided for subject, own in known.items() if own.decided}
        replayed = earlier_than_batch([items[place] for place in places], purposes, standings)
        if replayed:
            places = _of_same_people(items, places, {subject for subject, _ in replayed})
            async with self.ledger.reading() as reading:
                standings = await _before_batch([items[place] for place in places], purposes, standings, reading)
        judged = [items[place] for place in places]
        evaluation = evaluate(judged, purposes, standings, known, self.clock())
        changing = evaluation.changing
        if changing:
            places = _of_same_people(items, places, changing)
            judged = [items[place] for place in places]
            evaluation = await self._record(judged, purposes, standings, changing)
        changed = changing | {subject for subject, _ in replayed}
        for place, item, outcome in zip(places, judged, evaluation.outcomes, strict=True):
            answers[place] = answer = self.written(outcome)
            if item.subjects and (workspace := purposes.get(item.workspace_id)) is not None and changed.isdisjoint(item.subjects):
                remember(item, answer, workspace, known)

    async def _record(
        self, items: Sequence[Item], purposes: Purposes, standings: dict[Subject, Decided], changing: Collection[Subject]
    ) -> Evaluation:
        """Judges all events of those whose decisions change, under their locks, and records what is news."""
        others = {subject: decided for subject, decided in standings.items() if subject not in changing}
        async with self.ledger.writing(changing) as writing:
            before = await _before_batch(items, purposes, await writing.standings(changing), writing)
            evaluation = evaluate(items, purposes, others | before, changing, self.clock())
            await writing.record(evaluation.decisions, evaluation.confirmations)
        return evaluation


def _of_same_people(items: Sequence[Item], places: Collection[int], people: Collection[Subject]) -> list[int]:
    """These places, and those of all events of these people, in order."""
    chosen = set(places)
    return [place for place, item in enumerate(items) if place in chosen or any(subject in people for subject in item.subjects)]


async def _before_batch(
    items: Sequence[Item], purposes: Purposes, standings: dict[Subject, Decided], reading: Reading
) -> dict[Subject, Decided]:
    """What was in force before these items: now, less what the same batch recorded when it was evaluated before."""
    ignored = earlier_than_batch(items, purposes, standings)
    if not ignored:
        return standings
    before = {subject: dict(standings[subject]) for subject, _ in ignored}
    for subject, purpose in ignored:
        del before[subject][purpose]
    for (subject, purpose), standing in (await reading.standings_without(ignored)).items():
        before[subject][purpose] = standing
    return standings | before
