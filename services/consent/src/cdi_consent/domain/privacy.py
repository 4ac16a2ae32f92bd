"""Privacy requests: what is asked for, who has to do it, and what comes next. A request is a state machine over services.

A request is **told** to services in attempts, numbered from 1. A service has done its part when it has reported an attempt that is at least
the one **needed**. Each store's reports are merged in such a way that their order and their repetition do not matter. An erasure is told a
second time after all have reported, for what was under way the first time; then it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

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


REPORTED: Final = (Status.RUNNING, Status.FAILED, Status.NOT_SUPPORTED, Status.FINISHED)
"""What a store can report, the worst first: of two reports of the same attempt the better one counts, for what is done stays done.

RUNNING is no answer yet: the service goes on by itself, and has reported the attempt only when none of its stores is RUNNING in it.
"""

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
        reported: the newest attempt that it reported, with all its stores; 0 for none.
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
    """Two reports of the same store and attempt as one; which comes first does not matter.

    When a store was done is told by the first report that says so; when it was seen running, by the newest. The highest count stays: a
    report that comes late counted less.
    """
    best = max(one, other, key=_rank)
    counted = max(one.counted, other.counted)
    if best.status is Status.RUNNING:
        return best._replace(counted=counted)
    times = [report.report_us for report in (one, other) if report.status is best.status]
    return best._replace(counted=counted, report_us=min(times))


def _rank(report: Report) -> tuple[int, int, str, int]:
    newest_us = report.report_us if report.status is Status.RUNNING else 0
    return REPORTED.index(report.status), newest_us, report.detail, report.counted


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
    detail = newest.detail if is_current or newest.status is Status.RUNNING else ""
    # What ran in one attempt was counted on in the next.
    counted = sum(one.counted for one in attempts if one.status is not Status.RUNNING or one is newest)
    return Step(part.service, store, status, counted, detail, part.tellings, newest.report_us)


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
