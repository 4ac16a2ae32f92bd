"""The use cases: purposes, recording, the ledger of a subject."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cdi.error.v1 import error_pb2
from cdi_consent.domain.chain import Line
from cdi_consent.domain.decisions import Decided, Decision, Subject
from cdi_consent.domain.documents import checked, checked_policy
from cdi_consent.domain.evaluation import is_granted
from cdi_consent.domain.policy import ConsentPolicy
from cdi_consent.domain.purposes import Purpose, Purposes, WorkspacePurposes, snapshot
from cdi_consent.domain.recording import Draft, accepted
from cdi_consent.ports import Clock, Ledger, Position, PurposeStore
from cdi_kernel.faults import Fault, NotFound, Transient

RELOAD_SECONDS = 1.0
"""How often a replica looks for purposes that another one was given. With the read itself it keeps the 2 s that the protocol promises."""


class PurposeBook:
    """The purposes in force as an immutable snapshot, at most ``RELOAD_SECONDS`` behind the store while that answers."""

    def __init__(self, store: PurposeStore) -> None:
        self._store = store
        self._known: tuple[list[Purpose], list[ConsentPolicy]] = ([], [])
        self._reloading = asyncio.Lock()
        self.current: Purposes = {}
        self.policies: Mapping[str, ConsentPolicy] = {}

    async def reload(self) -> None:
        """Takes over what is stored. Raises ``Unavailable``."""
        # One at a time: an older answer must not overtake a newer one.
        async with self._reloading:
            newest = await self._store.newest()
            if newest != self._known:
                self._known, self.current = newest, snapshot(*newest)
                self.policies = {policy.workspace_id: policy for policy in newest[1]}

    def workspace(self, workspace_id: str, names: Collection[str] = ()) -> WorkspacePurposes:
        """The purposes of a workspace. Raises ``NotFound`` if one of the names is none of them."""
        workspace = self.current.get(workspace_id, WorkspacePurposes(()))
        for name in names:
            if name not in workspace.by_name:
                raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such purpose", metadata={"resource": "purpose", "name": name})
        return workspace

    async def keep_current(self) -> None:
        """Reloads until cancelled. While the store is away the last snapshot stays; evaluation fails then anyway."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await self.reload()
            except Transient:
                continue


@dataclass(frozen=True, slots=True)
class Consent:
    """What consent does, in words of its ports."""

    ledger: Ledger
    purposes: PurposeStore
    book: PurposeBook
    clock: Clock

    async def apply_purpose(self, purpose: Purpose) -> tuple[Purpose, bool]:
        """Makes a purpose be as given; in force on this replica when it returns. Gives it with its version, and whether it changed.

        Raises:
            InvalidArgument: the purpose breaks a rule.
        """
        applied = await self.purposes.apply(checked(purpose))
        await self.book.reload()
        return applied

    async def list_purposes(self, workspace_id: str, after_name: str, limit: int) -> list[Purpose]:
        """Purposes by name, after a name."""
        return await self.purposes.page(workspace_id, after_name, limit)

    async def apply_policy(self, policy: ConsentPolicy) -> tuple[ConsentPolicy, bool]:
        """Makes the policy of a workspace be as given; otherwise as ``apply_purpose``."""
        applied = await self.purposes.apply_policy(checked_policy(policy))
        await self.book.reload()
        return applied

    def policy(self, workspace_id: str) -> ConsentPolicy:
        """The policy of a workspace, or what holds without one."""
        return self.book.policies.get(workspace_id, ConsentPolicy(workspace_id))

    async def list_decisions(self, subject: Subject, before: Position | None, limit: int) -> list[Line]:
        """The ledger of a subject, newest first."""
        return await self.ledger.page(subject, before, limit)

    async def record(self, drafts: Sequence[Draft]) -> list[Decision | Fault]:
        """Writes decisions into the ledger, the good ones all together; gives each one's decision or why it was refused."""
        purposes, now_us = self.book.current, self.clock()
        results = [accepted(draft, purposes, now_us) for draft in drafts]
        good = [result for result in results if isinstance(result, Decision)]
        if good:
            async with self.ledger.writing({decision.subject for decision in good}) as writing:
                await writing.record(good)
        return results

    async def check(self, workspace_id: str, name: str, people: Sequence[Sequence[Subject]]) -> list[bool]:
        """Whether a purpose is granted, for each of some people by all their ids. Records nothing.

        Raises:
            NotFound: the workspace has no such purpose.
        """
        defaults = self.book.workspace(workspace_id, [name]).anywhere
        subjects = dict.fromkeys([subject for person in people for subject in person])
        standings: dict[Subject, Decided] = {}
        if subjects:
            async with self.ledger.reading() as reading:
                standings = await reading.standings(subjects)
        return [is_granted(name, defaults, [standings[subject] for subject in person if subject in standings]) for person in people]
