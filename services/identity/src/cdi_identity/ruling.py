"""The use cases of the rules: apply them, read them, and know them while a batch is resolved.

A rule change takes the workspace's lock, so every batch is decided by one version. Nobody is told of it: each batch reads the version of
its workspaces in the statement that reads the identifiers anyway, and fetches the rules when it knows others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from cdi_identity.domain.rules import DEFAULT_RULES, Rules, problems
from cdi_identity.ports import GraphStore
from cdi_kernel.faults import InvalidArgument

_MAX_KNOWN: Final = 1_000
"""Workspaces whose rules are kept in memory; the defaults take no place."""


class RuleReader(Protocol):
    """What has the rules; the store and its writer do."""

    async def rules(self, workspace_id: str) -> Rules:
        """The newest rules of a workspace."""
        ...


class RuleBook:
    """The rules of the workspaces as far as this replica has seen them: immutable snapshots, which may be outdated."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Rules] = OrderedDict()

    def known(self, workspace_ids: Iterable[str]) -> dict[str, Rules]:
        """The last known rules of each workspace; the caller compares their version."""
        return {workspace_id: self._known.get(workspace_id, DEFAULT_RULES) for workspace_id in workspace_ids}

    async def read(self, workspace_ids: Iterable[str], reader: RuleReader) -> Mapping[str, Rules]:
        """Reads the newest rules of each workspace, and remembers them."""
        newest = {}
        for workspace_id in workspace_ids:
            newest[workspace_id] = self._known[workspace_id] = await reader.rules(workspace_id)
            self._known.move_to_end(workspace_id)
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return newest


class Ruling:
    """Applies and shows rules.

    Args:
        store: where they are kept.
        now_us: the clock, microseconds since 1970.
    """

    def __init__(self, store: GraphStore, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us

    async def apply(self, workspace_id: str, given: Rules) -> tuple[Rules, bool]:
        """Makes the rules of a workspace be as given. Returns them with their version, and whether they were others before.

        Raises:
            InvalidArgument: with one violation per mistake.
        """
        violations = list(problems(given))
        if not workspace_id or "\0" in workspace_id:
            violations.append(("workspace_id", "not a name"))
        if violations:
            raise InvalidArgument("the rules are not valid", field_violations=[(f"rules.{field}", text) for field, text in violations])
        async with self._store.changing([workspace_id]) as writer:
            current = await writer.rules(workspace_id)
            wanted = replace(given, version=current.version)
            if wanted == current:
                return current, False
            newest = replace(given, version=current.version + 1)
            await writer.apply_rules(workspace_id, newest, self._now_us())
        return newest, True

    async def read(self, workspace_id: str) -> Rules:
        """The rules of a workspace; version 0: the defaults."""
        return await self._store.rules(workspace_id)
