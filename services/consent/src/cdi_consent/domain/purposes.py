"""Purposes: what makes one valid, and a workspace's purposes prepared for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import msgspec

from cdi_kernel.faults import InvalidArgument

MAX_NAME: Final = 64
"""Characters of a workspace's or a purpose's name. With ``MAX_SUBJECT_ID`` it keeps every key below Postgres' 2,704 bytes."""

MAX_TEXT: Final = 2_000
"""Characters of a description."""

MAX_CATEGORIES: Final = 100
"""Categories of one purpose, of at most ``MAX_NAME`` characters each (Segment: fewer than 35)."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """Something that data is used for.

    Attributes:
        workspace_id: the workspace.
        name: its name, which is also a category.
        description: for people.
        categories: categories of consent management platforms that mean it, sorted, without its own name. Case-sensitive.
        allowed_by_default: what holds without a decision.
        required_for_linking: unless it is granted, an event may not be written into the identity graph.
        version: 1 for the first, 0 before it is stored.
    """

    workspace_id: str
    name: str
    description: str = ""
    categories: tuple[str, ...] = ()
    allowed_by_default: bool = False
    required_for_linking: bool = False
    version: int = 0


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one event may be used for.

    Attributes:
        granted_purposes: names, sorted.
        decision_ids: the decisions that this rests on, in the order of the purposes.
        linkable: it may be written into the identity graph.
    """

    granted_purposes: tuple[str, ...]
    decision_ids: tuple[str, ...]
    linkable: bool


WITHOUT_PURPOSES: Final = Outcome((), (), True)
"""The outcome in a workspace that has no purposes."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkspacePurposes:
    """The purposes of one workspace. Equal only to itself, so that what follows from it can be remembered.

    Attributes:
        purposes: by name, sorted.
        by_category: the names of the purposes that a category means; a purpose's own name is one of its categories.
        default: the outcome for a person without any decision.
    """

    purposes: tuple[Purpose, ...]
    by_category: Mapping[str, tuple[str, ...]] = field(init=False)
    default: Outcome = field(init=False)

    def __post_init__(self) -> None:
        meant: dict[str, list[str]] = {}
        for purpose in self.purposes:
            for category in (purpose.name, *purpose.categories):
                meant.setdefault(category, []).append(purpose.name)
        granted = tuple(purpose.name for purpose in self.purposes if purpose.allowed_by_default)
        linkable = all(purpose.allowed_by_default for purpose in self.purposes if purpose.required_for_linking)
        object.__setattr__(self, "by_category", {category: tuple(names) for category, names in meant.items()})
        object.__setattr__(self, "default", Outcome(granted, (), linkable))


Purposes = Mapping[str, WorkspacePurposes]
"""An immutable snapshot: workspace → its purposes. Workspaces without purposes are absent."""


def snapshot(purposes: Iterable[Purpose]) -> Purposes:
    """All purposes in their newest version, prepared for evaluation."""
    ordered = sorted(purposes, key=lambda purpose: (purpose.workspace_id, purpose.name))
    return {workspace: WorkspacePurposes(tuple(own)) for workspace, own in groupby(ordered, key=lambda purpose: purpose.workspace_id)}


def checked(purpose: Purpose) -> Purpose:
    """The purpose in its canonical form: categories sorted, each once, without the name.

    Raises:
        InvalidArgument: a name is missing, too long or holds a control character; too many categories.
    """
    problems = list(_problems(purpose))
    if problems:
        raise InvalidArgument("the purpose breaks a rule", metadata={"field": problems[0][0]}, field_violations=problems)
    categories = tuple(sorted({category for category in purpose.categories if category != purpose.name}))
    return dataclasses.replace(purpose, categories=categories)


def _problems(purpose: Purpose) -> Iterator[tuple[str, str]]:
    rule = f"must have 1 to {MAX_NAME} printable characters"
    if not _is_name(purpose.workspace_id):
        yield "purpose.workspace_id", rule
    if not _is_name(purpose.name):
        yield "purpose.name", rule
    if len(purpose.description) > MAX_TEXT or "\0" in purpose.description:
        yield "purpose.description", f"must have at most {MAX_TEXT} characters and no NUL"
    if len(purpose.categories) > MAX_CATEGORIES:
        yield "purpose.categories", f"must be at most {MAX_CATEGORIES}"
    for index, category in enumerate(purpose.categories):
        if not _is_name(category):
            yield f"purpose.categories[{index}]", rule


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()
