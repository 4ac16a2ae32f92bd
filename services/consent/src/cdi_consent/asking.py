"""The use cases of people who ask: what somebody allows, why something was left out, whether the ledger holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_consent.application import PurposeBook
from cdi_consent.domain.chain import Break, breaks
from cdi_consent.domain.decisions import Subject
from cdi_consent.domain.states import State, states_now, states_of
from cdi_consent.ports import Ledger, Profiles
from cdi_kernel.faults import NotFound

MAX_BREAKS: Final = 1_000
"""Places that one verification tells of (consent_service.proto)."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification has seen: lines, chains, and the first places where they do not hold."""

    lines: int
    chains: int
    breaks: Sequence[Break]


@dataclass(frozen=True, slots=True)
class Asking:
    """Answers about consent, in words of its ports."""

    ledger: Ledger
    book: PurposeBook
    profiles: Profiles

    async def of_profile(self, workspace_id: str, profile_id: str) -> tuple[list[State], Sequence[Subject]]:
        """What a person allows now, and by which ids.

        Raises:
            NotFound: there is no such profile.
            Unavailable: identity does not answer.
        """
        (person,) = await self.profiles.by_id(workspace_id, [profile_id])
        if person is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": profile_id})
        return await self.of_subjects(workspace_id, person.subjects), person.subjects

    async def of_subjects(self, workspace_id: str, subjects: Sequence[Subject]) -> list[State]:
        """What these ids allow now, as those of one person."""
        workspace = self.book.workspace(workspace_id)
        async with self.ledger.reading() as reading:
            found = [decided for decided in (await reading.standings(subjects)).values() if decided]
        ids = {standing.decision_id for decided in found for standing in decided.values()}
        return list(states_now(workspace, found, await self.ledger.lines(workspace_id, ids)))

    async def explain(self, workspace_id: str, names: Sequence[str], decision_ids: Sequence[str]) -> list[State]:
        """What decisions say of purposes. Raises ``NotFound`` for a purpose that there is not."""
        workspace = self.book.workspace(workspace_id, names)
        return list(states_of(workspace, names, await self.ledger.lines(workspace_id, decision_ids)))

    async def verify(self, workspace_id: str, subject: Subject | None) -> Verified:
        """Whether the chain of a subject holds, or every chain of a workspace."""
        lines = chains = 0
        found: list[Break] = []
        async for chain in self.ledger.verification(workspace_id, subject):
            lines, chains = lines + len(chain.lines), chains + 1
            if len(found) < MAX_BREAKS:
                found += breaks(*chain)
        return Verified(lines, chains, found[:MAX_BREAKS])
