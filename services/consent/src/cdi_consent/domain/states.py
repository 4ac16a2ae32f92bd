"""What holds for each purpose, and why: for people who ask, not for the data path."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import Decided
from cdi_consent.domain.evaluation import is_granted
from cdi_consent.domain.policy import DefaultPolicy
from cdi_consent.domain.purposes import Purpose, WorkspacePurposes


class State(NamedTuple):
    """What holds for one purpose.

    Attributes:
        purpose: in its version now.
        granted: yes or no.
        lines: the decisions that this rests on: the denials if there is one, else the grants.
        default_policy: what decided where there are none.
        policy_version: of the workspace's policy now.
        conflict: some of the ids granted it and others denied it.
    """

    purpose: Purpose
    granted: bool
    lines: Sequence[Line]
    default_policy: DefaultPolicy
    policy_version: int
    conflict: bool


def states_now(workspace: WorkspacePurposes, found: Sequence[Decided], lines: Iterable[Line]) -> Iterator[State]:
    """What holds for a person now, by all ids.

    Args:
        workspace: its purposes.
        found: what is in force of each id.
        lines: the ledger's lines of all that is in force.
    """
    by_id = {line.decision.decision_id: line for line in lines}
    for purpose in workspace.purposes:
        own = [by_id[standing.decision_id] for decided in found if (standing := decided.get(purpose.name)) is not None]
        yield _state(workspace, purpose, own, is_granted(purpose.name, workspace.anywhere, found))


def states_of(workspace: WorkspacePurposes, names: Collection[str], lines: Sequence[Line]) -> Iterator[State]:
    """What decisions say, as an event rests on them; where none says anything, what the default policy says now.

    Args:
        workspace: its purposes.
        names: only these; empty means all.
        lines: the decisions.
    """
    for purpose in workspace.purposes:
        if not names or purpose.name in names:
            own = [line for line in lines if line.decision.purpose == purpose.name]
            without = purpose.name in (workspace.anywhere.unanswered if lines else workspace.anywhere.unknown).granted_purposes
            yield _state(workspace, purpose, own, all(line.decision.granted for line in own) if own else without)


def _state(workspace: WorkspacePurposes, purpose: Purpose, own: Sequence[Line], granted: bool) -> State:
    decisive = [line for line in own if line.decision.granted == granted]
    conflict = len({line.decision.granted for line in own}) > 1
    policy = workspace.anywhere.policies[purpose.name]
    return State(purpose, granted, decisive, policy, workspace.policy.version, conflict)
