"""A privacy request itself, and all that is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.privacy import DAY_US, DEADLINE_DAYS, IDENTITY, Part, Report, Status, Step, Verb, steps_of, told
from cdi_consent.domain.tombstones import PROFILE_ID, Burial, Digest


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
