"""The use case behind the graph's changes: what one id denied counts for the other ids of the same person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdi_consent.application import PurposeBook
from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import Decided, Decision, Standing, Subject
from cdi_consent.domain.persons import Moment, foreign, inherited, lifted, root_of
from cdi_consent.ports import Clock, Ledger, Person, Profiles, Reading


@dataclass(frozen=True, slots=True)
class Persons:
    """Keeps the ids of each person at the strictest answer. Every call may be done again: what is recorded already adds nothing.

    Raises ``Unavailable`` while identity or the database is away.
    """

    ledger: Ledger
    book: PurposeBook
    profiles: Profiles
    clock: Clock

    async def merged(self, workspace_id: str, profile_ids: Sequence[str], since_us: int) -> None:
        """Profiles became one at a time: the stricter answer counts for all their ids."""
        await self._spread(workspace_id, await self.profiles.by_id(workspace_id, profile_ids), since_us)

    async def denied(self, workspace_id: str, subjects: Sequence[Subject]) -> None:
        """These ids denied something: it counts for the other ids of their persons."""
        await self._spread(workspace_id, await self.profiles.of_subjects(workspace_id, subjects), 0)

    async def split(self, workspace_id: str, profile_ids: Sequence[str], since_us: int) -> None:
        """Profiles were split off at a time: on both sides each id has its own answer again, or that of those who stayed with it."""
        for person in await self.profiles.by_id(workspace_id, profile_ids):
            if person is None:
                continue
            others = await self._lift(workspace_id, person.subjects, since_us)
            if others:
                await self.denied(workspace_id, others)

    async def _spread(self, workspace_id: str, found: Sequence[Person | None], since_us: int) -> None:
        """Makes the strictest answer of each person count for all their ids; all of them together."""
        workspace = self.book.workspace(workspace_id)
        people = {person.profile_id: person.subjects for person in found if person is not None and len(person.subjects) > 1}
        if not people or not workspace.purposes:
            return
        moment = Moment(since_us, self.clock())

        async def decide(reading: Reading, subjects: Sequence[Subject]) -> list[Decision]:
            standings, lines = await self._in_force(workspace_id, reading, subjects)
            return [one for own in people.values() for one in inherited(own, standings, lines, workspace, moment)]

        subjects = list(dict.fromkeys(subject for own in people.values() for subject in own))
        async with self.ledger.reading() as reading:
            news = await decide(reading, subjects)
        if news:
            changing = {decision.subject for decision in news}
            people = {profile_id: own for profile_id, own in people.items() if not changing.isdisjoint(own)}
            subjects = list(dict.fromkeys(subject for own in people.values() for subject in own))
            async with self.ledger.writing(subjects) as writing:
                await writing.record(await decide(writing, subjects))

    async def _lift(self, workspace_id: str, subjects: Sequence[Subject], since_us: int) -> list[Subject]:
        """Lifts what came over the border of a split; whose answers it was that changed."""
        workspace = self.book.workspace(workspace_id)
        moment = Moment(since_us, self.clock())
        async with self.ledger.reading() as reading:
            _, own = await self._in_force(workspace_id, reading, subjects)
        roots = {root_of(line) for line in own.values()}
        reached = await self.ledger.inherited(workspace_id, roots)
        candidates = sorted({*subjects, *(line.decision.subject for line in reached)})
        whose = {line.decision.decision_id: line.decision.subject for line in await self.ledger.lines(workspace_id, roots)}
        async with self.ledger.writing(candidates) as writing:
            _, lines = await self._in_force(workspace_id, writing, candidates)
            gone = foreign(frozenset(subjects), lines.values(), whose)
            restored = await _restored(writing, gone)
            decisions: list[Decision] = [lifted(line, restored[_key(line)], workspace, moment) for line in gone]
            await writing.record(decisions, restored=restored)
        return [line.decision.subject for line in gone]

    async def _in_force(
        self, workspace_id: str, reading: Reading, subjects: Sequence[Subject]
    ) -> tuple[Mapping[Subject, Decided], dict[str, Line]]:
        """What is in force, and the denials of it by decision id."""
        standings = await reading.standings(subjects)
        ids = [one.decision_id for decided in standings.values() for one in decided.values() if not one.granted]
        return standings, {line.decision.decision_id: line for line in await self.ledger.lines(workspace_id, ids)}


async def _restored(reading: Reading, gone: Sequence[Line]) -> dict[tuple[Subject, str], Standing | None]:
    """What is in force of each id once a denial from elsewhere no longer counts; ``None`` for nothing."""
    own = await reading.standings_without({_key(line): [line.decision.decision_id] for line in gone}) if gone else {}
    return {_key(line): own.get(_key(line)) for line in gone}


def _key(line: Line) -> tuple[Subject, str]:
    return line.decision.subject, line.decision.purpose
