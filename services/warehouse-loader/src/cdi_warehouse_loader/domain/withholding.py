"""What one warehouse may not have of an event because a purpose that names the warehouse is denied.

Whole events are left out by ``Target.purposes``. Members are taken out here, and what was made of them goes along: enrichments, and the
trait that identity keeps of them. So no later step, neither a column nor ``discards``, meets what is withheld. Other warehouses and
destinations have the event whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from cdi.event.v1 import event_pb2
from cdi_kernel.json_paths import without
from cdi_warehouse_loader.domain.event_view import EventView
from cdi_warehouse_loader.domain.load import ColumnNeeds, Target

_Part = Literal["geo", "user_agent", "campaign", "referrer", "email_quality"]

_MADE_OF: Final[Mapping[_Part, Sequence[str]]] = {
    "geo": ("context.ip",),
    "user_agent": ("context.userAgent",),
    "campaign": ("context.campaign", "context.page.url", "context.page.search", "properties.url", "properties.search"),
    "referrer": ("context.page.referrer", "properties.referrer"),
    "email_quality": ("traits.email", "context.traits.email", "properties.email"),
}
"""Part of the enrichments → the members that enrichment makes it of (the README of enrichment, "Enrichers")."""

OWN_IDENTIFIERS: Final = frozenset({"user_id", "anonymous_id"})
"""Types of identifiers that are columns of every event: no path names them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the purposes of a workspace say of one warehouse.

    Attributes:
        rows: every one must be granted for an event to be loaded.
        columns: members, and the purposes that each needs.
    """

    rows: frozenset[str]
    columns: ColumnNeeds


NeedsOf = Mapping[str, Needs]
"""By warehouse. One that no purpose names is missing."""

NO_NEEDS: Final[Mapping[str, NeedsOf]] = {}


def needs_of(rules: Iterable[tuple[str, str, bool, Collection[str]]]) -> NeedsOf:
    """The needs by warehouse.

    Args:
        rules: of all purposes: purpose, warehouse, whether rows need it, the paths that need it.
    """
    rows: dict[str, set[str]] = {}
    columns: dict[str, dict[str, set[str]]] = {}
    for purpose, warehouse, needs_rows, paths in rules:
        rows.setdefault(warehouse, set()).update([purpose] if needs_rows else ())
        for path in paths:
            columns.setdefault(warehouse, {}).setdefault(path, set()).add(purpose)
    return {
        warehouse: Needs(frozenset(purposes), tuple((path, frozenset(names)) for path, names in sorted(columns.get(warehouse, {}).items())))
        for warehouse, purposes in rows.items()
    }


def needing(target: Target, needs: Needs | None) -> Target:
    """A target with what purposes say of it: it needs that and the purposes of its own document."""
    return target if needs is None else replace(target, purposes=target.purposes | needs.rows, columns=needs.columns)


@lru_cache(maxsize=1_024)
def withheld(columns: ColumnNeeds, granted: tuple[str, ...]) -> tuple[str, ...]:
    """The members that need a purpose which is not granted."""
    given = frozenset(granted)
    return tuple(path for path, purposes in columns if not purposes <= given)


def masked(
    events: Sequence[EventView], granted: Sequence[tuple[str, ...]], rows: Iterable[int], columns: ColumnNeeds
) -> dict[int, EventView]:
    """Copies, without what is withheld, of those events of which something is.

    Args:
        events: the batch.
        granted: the purposes granted for each.
        rows: which of them are meant.
        columns: what the target says of members.

    Raises:
        Rejected: a document that holds such a member is no JSON.
    """
    if not columns:
        return {}
    return {row: _without_members(events[row], paths) for row in rows if (paths := withheld(columns, granted[row]))}


def withheld_traits(columns: ColumnNeeds) -> frozenset[str]:
    """Traits of profiles that rest on members which need a purpose."""
    return frozenset(trait[0] for path, _ in columns if (trait := _trait_path(path)))


class _Parts(NamedTuple):
    """Members that are taken out, and what goes with them.

    Attributes:
        members: root and path below it.
        traits: paths in the traits that identity keeps.
        enrichments: parts that were made of them.
    """

    members: Sequence[tuple[str, Sequence[str]]]
    traits: Sequence[Sequence[str]]
    enrichments: Sequence[_Part]


@lru_cache(maxsize=1_024)
def _parts_of(paths: tuple[str, ...]) -> _Parts:
    return _Parts(
        [(path.partition(".")[0], path.split(".")[1:]) for path in paths],
        [trait for path in paths if (trait := _trait_path(path))],
        [part for part, members in _MADE_OF.items() if any(_overlap(member, path) for member in members for path in paths)],
    )


def _without_members(event: EventView, paths: tuple[str, ...]) -> EventView:
    left, parts = deepcopy(event), _parts_of(paths)
    for root, below in parts.members:
        document: bytes = getattr(left, root)
        if document and (rest := without(document, below)) is not document:
            setattr(left, root, rest)
    if parts.traits and event.identity:
        identity = event_pb2.IdentityResult.FromString(event.identity)
        if identity.traits:
            for trait in parts.traits:
                identity.traits = without(identity.traits, trait)
            left.identity = identity.SerializeToString()
    if parts.enrichments and event.enrichments:
        enrichments = event_pb2.Enrichments.FromString(event.enrichments)
        for part in parts.enrichments:
            enrichments.ClearField(part)
        left.enrichments = enrichments.SerializeToString()
    return left


def _trait_path(path: str) -> list[str]:
    """Where the member of an event stands in the traits of its profile; nowhere if it is none of the person's traits."""
    root, _, below = path.removeprefix("context.").partition(".")
    return below.split(".") if root == "traits" else []


def _overlap(member: str, path: str) -> bool:
    """Whether one is the other or a part of it."""
    return f"{member}.".startswith(f"{path}.") or path.startswith(f"{member}.")
