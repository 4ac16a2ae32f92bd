"""What consent needs from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from cdi_consent.domain.archive import Piece
from cdi_consent.domain.chain import Line, Link
from cdi_consent.domain.decisions import Decided, Decision, Standing, Subject
from cdi_consent.domain.policy import ConsentPolicy
from cdi_consent.domain.privacy import Report, Status, Verb
from cdi_consent.domain.privacy_report import Signed
from cdi_consent.domain.privacy_request import File, Request
from cdi_consent.domain.purposes import Purpose
from cdi_consent.domain.tombstones import Digest, Tombstone

Clock = Callable[[], int]
"""Microseconds since 1970. Does not promise to rise."""

Position = tuple[int, str]
"""A place in a subject's ledger: decide time in microseconds since 1970, decision id."""


class Chain(NamedTuple):
    """All lines of a subject by place, and the last link as it is kept beside them; ``None`` if that is gone."""

    subject: Subject
    lines: Sequence[Line]
    head: Link | None


Moment = tuple[str, str]
"""What a look saw, in the store's own words."""


class Look(NamedTuple):
    """What one look at the store saw, all of it committed at one moment.

    Attributes:
        moment: that moment.
        generation: of the tombstones; 0 while there are none at all.
        changed: digests of the subjects of whom something else was in force at the moment before, or may have been
            (``domain/known.py``); ``None``: of any.
        standings: what is in force of the subjects that were asked about. Those without a decision are absent.
    """

    moment: Moment
    generation: int
    changed: Collection[bytes] | None
    standings: Mapping[Subject, Decided]


class Looks(Protocol):
    """Looks at what is in force and who has changed."""

    async def look(self, subjects: Collection[Subject], since: Moment | None) -> Look:
        """What is in force of some subjects, and who has changed since an earlier look. Raises ``Unavailable``."""
        ...


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


class TombstoneReader(Protocol):
    """The tombstones. Every call raises ``Unavailable`` when the database does not answer."""

    def since(self, generation: int) -> AsyncIterator[tuple[str, Digest]]:
        """Workspace and digest of all that were written after a generation."""
        ...

    async def found(self, keys: Sequence[tuple[str, Digest]]) -> dict[Digest, Tombstone]:
        """Those of some keys, as (workspace, digest), that there are."""
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


class Known(NamedTuple):
    """All that identity knows of the ids of one person: (workspace, type, id) of any type, and all profile ids."""

    subjects: tuple[Subject, ...]
    profile_ids: tuple[str, ...]


class People(Protocol):
    """The identity service, asked for everything that belongs together. Raises ``Unavailable`` while it is away."""

    async def known(self, workspace_id: str, people: Sequence[Sequence[Subject]]) -> list[Known]:
        """For each person, by any ids, what is known; nothing where nobody has any of them."""
        ...


class RequestStore(Protocol):
    """Privacy requests. Every call raises ``Unavailable`` when the database does not answer."""

    async def create(self, requests: Sequence[Request]) -> None:
        """Stores those whose id is new, of one workspace and verb, with the tombstones of their ids: effective when it returns."""
        ...

    async def get(self, workspace_id: str, request_id: str) -> File | None:
        """A request with all that is known of it."""
        ...

    async def page(self, workspace_id: str, status: Status | None, before: tuple[int, str], limit: int) -> list[Request]:
        """Requests, newest first, after a create time and id in that order."""
        ...

    async def report(self, workspace_id: str, request_id: str) -> Signed | None:
        """The report of a request that has ended."""
        ...


class Reported(NamedTuple):
    """What a service reports of one attempt, by store."""

    request_id: str
    service: str
    attempt: int
    reports: Sequence[Report]


class FulfilmentStore(Protocol):
    """Privacy requests under way. Each call is one transaction, and may be made by several replicas at once. Raises ``Unavailable``."""

    async def unknown(self, now_us: int, limit: int) -> list[Request]:
        """Requests whose person has still to be looked up, and which are due."""
        ...

    async def postpone(self, requests: Collection[Request], until_us: int) -> None:
        """Identity did not answer: they are due later."""
        ...

    async def order(self, requests: Sequence[Request], now_us: int) -> None:
        """Tells the services about requests whose people and profiles are now known; buries all their ids."""
        ...

    async def report(self, reported: Sequence[Reported], now_us: int) -> list[bool | None]:
        """Takes services' reports, all together.

        Returns:
            For each, in order, whether it was taken. False: the service was never told that attempt. ``None``: there is no such request, or
            it does not ask that service. What comes after the end is taken and changes nothing.
        """
        ...

    async def advance(self, now_us: int, limit: int) -> int:
        """Makes the next move of requests that are due; of how many."""
        ...

    async def retry(self, workspace_id: str, request_id: str, now_us: int) -> File | None:
        """Goes on with a request unless it is done; gives it as it was, ``None`` if there is none."""
        ...


class OwnStore(Protocol):
    """What consent itself holds about people."""

    async def work(self, now_us: int, limit: int) -> int:
        """Does consent's part of requests that were told, and reports it, in one transaction; of how many. Raises ``Unavailable``."""
        ...


class ArchiveState(NamedTuple):
    """Whether there is an archive: of what request, how far that is, and whether what was sent is still there."""

    verb: Verb
    status: Status
    is_kept: bool


class HoldingStore(Protocol):
    """What services hold about somebody, as they sent it. Every call raises ``Unavailable`` when the database does not answer."""

    async def is_asked(self, request_id: str, service: str) -> bool:
        """Whether a service is to send what it holds."""
        ...

    async def add(self, holdings_id: str, part: int, request_id: str, service: str, holding: str, rows: Sequence[bytes]) -> None:
        """Keeps rows, which count once ``put`` was called. ``part`` rises from 0."""
        ...

    async def put(self, holdings_id: str, parts: int, request_id: str, service: str) -> None:
        """Makes these parts what the service holds, in the place of what it sent before."""
        ...

    async def state(self, workspace_id: str, request_id: str) -> ArchiveState | None:
        """Of a request; ``None`` if there is none."""
        ...

    async def pieces(self, request_id: str, after: Piece | None, within: bool) -> list[Piece]:
        """Some pieces in order, after one; ``within``: only of the same holding. None: that were all."""
        ...

    async def expire(self, now_us: int) -> None:
        """Removes what has been kept long enough."""
        ...
