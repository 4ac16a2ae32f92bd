"""Privacy requests: what is asked for, who has to do it, and what comes next. A request is a state machine over services.

A request is **told** to services in attempts, numbered from 1. A service has done its part when it has reported an attempt that is at least
the one **needed**. Each store's reports are merged in such a way that their order and their repetition do not matter. An erasure is told a
second time after all have reported, for what was under way the first time; then it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.tombstones import PROFILE_ID, Burial, Digest

DAY_US: Final = 86_400_000_000

CONSENT: Final = "consent"
"""This service, which has a part of its own."""

IDENTITY: Final = "identity"

ALL_SERVICES: Final = ("collector", CONSENT, "enrichment", IDENTITY, "router", "warehouse-loader")


class Verb(IntEnum):
    """What is asked for. The numbers are those of ``cdi.consent.v1.PrivacyVerb``."""

    SUPPRESS_WITH_DELETE = 1
    DELETE_ONLY = 2
    SUPPRESS_WITH_DELETE_INTERNAL = 3
    DELETE_INTERNAL = 4
    SUPPRESS_ONLY = 5
    UNSUPPRESS = 6
    ACCESS = 7

    @property
    def erases(self) -> bool:
        """What is there goes."""
        return self <= Verb.DELETE_INTERNAL

    @property
    def suppresses(self) -> bool | None:
        """Whether later events are taken: True: no; False: again; ``None``: as before."""
        if self in (Verb.SUPPRESS_WITH_DELETE, Verb.SUPPRESS_WITH_DELETE_INTERNAL, Verb.SUPPRESS_ONLY):
            return True
        return False if self is Verb.UNSUPPRESS else None

    @property
    def at_destinations(self) -> bool:
        """Destinations are told to delete as well."""
        return self in (Verb.SUPPRESS_WITH_DELETE, Verb.DELETE_ONLY)

    @property
    def services(self) -> tuple[str, ...]:
        """Who has to report. Suppression is consent's alone: the others ask it for every batch."""
        return ALL_SERVICES if self.erases or self is Verb.ACCESS else (CONSENT,)

    @property
    def looks(self) -> int:
        """How often all services are told: an erasure is told a second time."""
        return 2 if self.erases else 1

    @property
    def kind(self) -> str:
        """The kind in the subject on PRIVACY."""
        return "erase" if self.erases else "access" if self is Verb.ACCESS else "suppress"


class Status(IntEnum):
    """How far a request or a store is. The numbers are those of ``cdi.consent.v1.PrivacyStatus``."""

    INITIALIZED = 1
    INVALID = 2
    NOT_SUPPORTED = 3
    RUNNING = 4
    PARTIAL_SUCCESS = 5
    FAILED = 6
    FINISHED = 7

    @property
    def is_done(self) -> bool:
        """Nothing is left that a retry could do."""
        return self in (Status.INVALID, Status.PARTIAL_SUCCESS, Status.FINISHED)


REPORTED: Final = (Status.FAILED, Status.NOT_SUPPORTED, Status.FINISHED)
"""What a store can report, the worst first: of two reports of the same attempt the better one counts, for what is done stays done."""

DEADLINE_DAYS: Final[Mapping[str, int]] = {"gdpr": 30, "us": 45}
"""Until when a request is answered: GDPR Art. 12(3), a month; California (CCPA § 1798.130) and other states, 45 days."""


class Report(NamedTuple):
    """What one store did in one attempt.

    Attributes:
        service: whose store.
        store: which.
        attempt: as told.
        status: one of ``REPORTED``.
        counted: rows, events or calls.
        detail: why it is not FINISHED.
        report_us: when it came.
    """

    service: str
    store: str
    attempt: int
    status: Status
    counted: int
    detail: str
    report_us: int


class Part(NamedTuple):
    """How far one service is.

    Attributes:
        service: which.
        needed: reports of this attempt and later ones count.
        told: the newest attempt that it was told.
        reported: the newest attempt that it reported; 0 for none.
        tellings: times that it was told.
        retell_us: when it is told again unless it has reported.
    """

    service: str
    needed: int
    told: int
    reported: int
    tellings: int
    retell_us: int

    @property
    def is_pending(self) -> bool:
        """It has still to report."""
        return self.reported < self.needed


class Step(NamedTuple):
    """One store's part of a request, over all attempts."""

    service: str
    store: str
    status: Status
    counted: int
    detail: str
    attempts: int
    report_us: int


def better(one: Report, other: Report) -> Report:
    """Two reports of the same store and attempt as one; which comes first does not matter."""
    best = max(one, other, key=lambda report: (REPORTED.index(report.status), report.detail))
    return best._replace(counted=max(one.counted, other.counted), report_us=min(one.report_us, other.report_us))


def steps_of(parts: Iterable[Part], reports: Iterable[Report]) -> list[Step]:
    """How far each store is, by service and store.

    Of each service the newest report says how its stores are; one that it no longer names has nothing to do. What the attempts counted adds
    up. A service that has still to report is RUNNING with all its stores.
    """
    ordered = sorted(reports, key=lambda report: (report.service, report.store, report.attempt))
    by_service = {service: list(own) for service, own in groupby(ordered, key=lambda report: report.service)}
    steps: list[Step] = []
    for part in sorted(parts):
        own = by_service.get(part.service, [])
        if not own:
            status = Status.RUNNING if part.is_pending else Status.FINISHED
            steps.append(Step(part.service, "", status, 0, "", part.tellings, 0))
        for store, group in groupby(own, key=lambda report: report.store):
            steps.append(_step(part, store, list(group)))
    return steps


def _step(part: Part, store: str, attempts: Sequence[Report]) -> Step:
    newest = attempts[-1]
    is_current = newest.attempt == part.reported
    status = Status.RUNNING if part.is_pending else newest.status if is_current else Status.FINISHED
    detail = newest.detail if is_current else ""
    return Step(part.service, store, status, sum(one.counted for one in attempts), detail, part.tellings, newest.report_us)


def outcome(steps: Iterable[Step]) -> Status:
    """What a request is whose stores are like this."""
    found = {step.status for step in steps}
    if Status.RUNNING in found:
        return Status.RUNNING
    if Status.FAILED in found:
        return Status.FAILED
    return Status.PARTIAL_SUCCESS if Status.NOT_SUPPORTED in found else Status.FINISHED


class Tell(NamedTuple):
    """Tell services, in a new attempt. ``again``: all have reported, and now have to do so once more."""

    services: tuple[str, ...]
    again: bool


class Wait(NamedTuple):
    """Nothing is to be done before then, unless a report comes."""

    until_us: int


class End(NamedTuple):
    """All is done that can be."""

    status: Status


Move: TypeAlias = Tell | Wait | End


def next_move(parts: Sequence[Part], reports: Sequence[Report], looks_left: int, second_look_us: int, now_us: int) -> Move:
    """What comes next for a request that was told.

    Args:
        parts: one per service that has to report.
        reports: so far.
        looks_left: how often all services are still to be told again.
        second_look_us: microseconds from the last report to telling again.
        now_us: now.
    """
    pending = [part for part in parts if part.is_pending]
    if pending:
        late = tuple(part.service for part in pending if part.retell_us <= now_us)
        return Tell(late, again=False) if late else Wait(min(part.retell_us for part in pending))
    if looks_left:
        at_us = max((report.report_us for report in reports), default=0) + second_look_us
        return Wait(at_us) if now_us < at_us else Tell(tuple(part.service for part in parts), again=True)
    return End(outcome(steps_of(parts, reports)))


def told(part: Part, attempt: int, again: bool, retell_us: int) -> Part:
    """A service's part once it was told an attempt."""
    needed = attempt if again else part.needed
    return part._replace(needed=needed, told=attempt, tellings=part.tellings + 1, retell_us=retell_us)


def retell_after_us(tellings: int, first_us: int) -> int:
    """How long a service has to report that was told so many times: twice as long each time, at most an hour or what it had first."""
    return min(first_us << min(tellings - 1, 20), max(first_us, 3_600_000_000))


class Request(NamedTuple):
    """A request about one person; times in microseconds since 1970.

    Attributes:
        request_id: a UUID.
        workspace_id: the workspace.
        verb: what is asked for.
        status: how far it is.
        regulation: a key of ``DEADLINE_DAYS``.
        subjects: who, as given: (workspace, type, id); empty once it is done.
        create_us: when it was made.
        deadline_us: until when it has to be answered.
        people: all ids that were found, and ...
        profile_ids: ... all profiles; empty until then, and once it is done.
        order_us: when the person was looked up; ``None`` until then.
        finish_us: when it ended; ``None`` until then.
        attempt: the newest that was told.
        looks_left: how often all services are still to be told again.
        lookups: times that identity was asked in vain.
    """

    request_id: str
    workspace_id: str
    verb: Verb
    status: Status
    regulation: str
    subjects: tuple[Subject, ...]
    create_us: int
    deadline_us: int
    people: tuple[Subject, ...] = ()
    profile_ids: tuple[str, ...] = ()
    order_us: int | None = None
    finish_us: int | None = None
    attempt: int = 0
    looks_left: int = 0
    lookups: int = 0

    @property
    def ids(self) -> tuple[Subject, ...]:
        """Everything that a tombstone is made of: given and found ids, and the profiles' own."""
        profiles = [(self.workspace_id, PROFILE_ID, profile_id) for profile_id in self.profile_ids]
        return tuple(dict.fromkeys((*self.subjects, *self.people, *profiles)))

    def burials(self, digest: Callable[[Subject], Digest]) -> list[Burial]:
        """What the request says of its ids; nothing for access."""
        if not self.verb.erases and self.verb.suppresses is None:
            return []
        before_us = (self.order_us or self.create_us) if self.verb.erases else None
        return [Burial(self.workspace_id, digest(one), before_us, self.verb.suppresses, self.create_us) for one in self.ids]


def made(request_id: str, verb: Verb, regulation: str, subjects: Sequence[Subject], now_us: int) -> Request:
    """A new request. ``subjects`` are of one workspace."""
    deadline_us = now_us + DEADLINE_DAYS[regulation] * DAY_US
    own = tuple(dict.fromkeys(subjects))
    return Request(request_id, own[0][0], verb, Status.INITIALIZED, regulation, own, now_us, deadline_us, looks_left=verb.looks - 1)


class File(NamedTuple):
    """All that is known of a request: itself, digests of its ids, its parts and reports."""

    request: Request
    digests: Sequence[Digest]
    parts: Sequence[Part]
    reports: Sequence[Report]

    @property
    def steps(self) -> list[Step]:
        """How far each store is; while the person is being looked up, how often that was tried."""
        request = self.request
        if request.order_us is None and request.lookups:
            return [Step(IDENTITY, "lookup", Status.RUNNING, 0, "identity does not answer", request.lookups, 0)]
        return steps_of(self.parts, self.reports)

    def retried(self, retell_us: int) -> list[Part]:
        """The parts that a retry tells again, as they are then: those with a failed store, and those that have still to report."""
        failed = {step.service for step in self.steps if step.status is Status.FAILED}
        attempt = self.request.attempt + 1
        return [told(part, attempt, part.service in failed, retell_us) for part in self.parts if part.is_pending or part.service in failed]


class Timing(NamedTuple):
    """When things are done again; microseconds.

    Attributes:
        retell_us: how long a service has to report before it is told again; twice as long after each telling.
        second_look_us: from the last report of an erasure to telling all services once more.
        archive_us: how long an archive is kept.
    """

    retell_us: int
    second_look_us: int
    archive_us: int
