"""What consent needs from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from cdi_consent.domain.chain import Line, Link
from cdi_consent.domain.decisions import Decided, Decision, Standing, Subject
from cdi_consent.domain.policy import ConsentPolicy
from cdi_consent.domain.purposes import Purpose

Clock = Callable[[], int]
"""Microseconds since 1970. Does not promise to rise."""

Position = tuple[int, str]
"""A place in a subject's ledger: decide time in microseconds since 1970, decision id."""


class Chain(NamedTuple):
    """All lines of a subject by place, and the last link as it is kept beside them; ``None`` if that is gone."""

    subject: Subject
    lines: Sequence[Line]
    head: Link | None


class Reading(Protocol):
    """Reads what is committed. Does not promise that two calls see the same moment."""

    async def standings(self, subjects: Collection[Subject]) -> dict[Subject, Decided]:
        """What is in force. Subjects without a decision are absent."""
        ...

    async def standings_without(self, ignored: Mapping[tuple[Subject, str], Sequence[str]]) -> dict[tuple[Subject, str], Standing]:
        """What would be in force for each (subject, purpose) if the given decisions had never been recorded; absent if nothing."""
        ...


class Writing(Reading, Protocol):
    """Reads and writes in one transaction that nobody else's writing about the same subjects can interleave with."""

    async def record(
        self,
        decisions: Sequence[Decision],
        confirmations: Mapping[tuple[Subject, str], Standing] = {},
        restored: Mapping[tuple[Subject, str], Standing | None] = {},
    ) -> None:
        """Adds decisions to the ledger, puts the latest of each subject and purpose in force and announces what was new, in order.

        A decision whose id is in the ledger already is left alone.

        Args:
            decisions: in the order in which they were met.
            confirmations: standings whose time moves forward; one whose decision is no longer in force is left alone.
            restored: for each decision of source SPLIT what is in force from then on, ``None`` for nothing.
        """
        ...


class Ledger(Protocol):
    """The ledger and the decisions in force. Every call raises ``Unavailable`` when the database does not answer."""

    def reading(self) -> AbstractAsyncContextManager[Reading]:
        """For reading without a transaction."""
        ...

    def writing(self, subjects: Collection[Subject]) -> AbstractAsyncContextManager[Writing]:
        """A transaction about these subjects. Any number of them may run at once, they never deadlock."""
        ...

    async def page(self, subject: Subject, before: Position | None, limit: int) -> list[Line]:
        """Lines of one subject, by decide time and id, newest first, after ``before`` in that order."""
        ...

    async def lines(self, workspace_id: str, decision_ids: Collection[str]) -> list[Line]:
        """The lines with these ids, oldest first; unknown ids are left out."""
        ...

    async def inherited(self, workspace_id: str, roots: Collection[str]) -> list[Line]:
        """The lines of source PROFILE that go back to these decisions, oldest first."""
        ...

    def verification(self, workspace_id: str, subject: Subject | None) -> AsyncIterator[Chain]:
        """The chain of a subject, or every chain of a workspace, all as they are at one moment."""
        ...


class PurposeStore(Protocol):
    """The purposes with all their versions. Every call raises ``Unavailable`` when the database does not answer."""

    async def apply(self, purpose: Purpose) -> tuple[Purpose, bool]:
        """Stores a purpose as the next version unless the newest one says the same; gives the newest and whether it is new."""
        ...

    async def apply_policy(self, policy: ConsentPolicy) -> tuple[ConsentPolicy, bool]:
        """Stores a policy as ``apply`` does a purpose."""
        ...

    async def newest(self) -> tuple[list[Purpose], list[ConsentPolicy]]:
        """Every purpose and every policy in its newest version."""
        ...

    async def page(self, workspace_id: str, after_name: str, limit: int) -> list[Purpose]:
        """Purposes of one workspace in their newest version, by name, after a name."""
        ...


class Person(NamedTuple):
    """A profile, and those of its identifiers that can be subjects."""

    profile_id: str
    subjects: tuple[Subject, ...]


class Profiles(Protocol):
    """The identity service. Every call raises ``Unavailable`` while it is away."""

    async def by_id(self, workspace_id: str, profile_ids: Sequence[str]) -> list[Person | None]:
        """The persons, by any of their profile ids, in order; ``None`` where there is none."""
        ...

    async def of_subjects(self, workspace_id: str, subjects: Sequence[Subject]) -> list[Person | None]:
        """The persons who have these ids, in order; ``None`` where nobody has it."""
        ...
