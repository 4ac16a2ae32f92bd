"""One person whom one destination is told to delete, call by call, and where that may end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cdi.consent.v1 import privacy_pb2
from cdi.consent.v1.privacy_pb2 import PrivacyStatus, PrivacyStep
from cdi_router.domain.answer import Answer, Verdict
from cdi_router.domain.retry import RetryPolicy
from cdi_router.domain.trials import Trials

RUNNING = privacy_pb2.PRIVACY_STATUS_RUNNING


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A person whom a destination is told to delete.

    Attributes:
        request_id: the privacy request.
        attempt: the telling that the calls go back to; those of the second look are others than those of the first.
        workspace_id: the workspace.
        subjects: type and value of all ids.
        profile_ids: all profile ids.
    """

    request_id: str
    attempt: int
    workspace_id: str
    subjects: Sequence[tuple[str, str]]
    profile_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far one destination is with one person.

    Attributes:
        destination_id: the destination.
        person: whom; without ids once it has ended.
        trials: of the next call.
        done: calls that were answered 2xx.
        status: ``RUNNING`` until it ends, then what is reported.
        detail: why it waits or failed, in words without personal data.
    """

    destination_id: int
    person: Forgotten
    trials: Trials
    done: int = 0
    status: PrivacyStatus.ValueType = RUNNING
    detail: str = ""

    @property
    def has_ended(self) -> bool:
        """Nothing more is sent."""
        return self.status != RUNNING

    def answered(self, answer: Answer, calls: int, policy: RetryPolicy, now: datetime, chance: float) -> Deletion:
        """How far it is after one more call: what fails is tried again and given up as an event is.

        Args:
            answer: to the call.
            calls: how many the person takes.
            policy: when to try again.
            now: the time.
            chance: a random number, 0 ≤ chance < 1.
        """
        if answer.verdict is Verdict.DELIVERED:
            status = RUNNING if self.done + 1 < calls else privacy_pb2.PRIVACY_STATUS_FINISHED
            return replace(self, done=self.done + 1, trials=Trials(now), status=status, detail="")
        trials = self.trials.failed(answer, policy, now, chance)
        over = answer.verdict is Verdict.REFUSED or trials.exhausted(policy, now)
        return replace(self, trials=trials, status=privacy_pb2.PRIVACY_STATUS_FAILED if over else RUNNING, detail=answer.describe())

    def ended(self, status: PrivacyStatus.ValueType, detail: str = "") -> Deletion:
        """Without a call."""
        return replace(self, status=status, detail=detail)


def step_of(destination: str, status: PrivacyStatus.ValueType, count: int = 0, detail: str = "") -> PrivacyStep:
    """What is reported of one destination."""
    return PrivacyStep(store=f"destination:{destination}", status=status, count=count, detail=detail)
