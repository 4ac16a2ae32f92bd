"""The use case of audiences: people as digests for advertising platforms, as far as their consent allows it.

Reads a page of people, asks consent about it, hands it out, and only then reads the next one: memory stays that of one page, and the
caller's pace is the pace of the reading.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cdi_identity.domain import audiences
from cdi_identity.domain.audiences import Condition, Scheme
from cdi_identity.ports import Asked, PeopleStore, PurposeChecker
from cdi_kernel.faults import Unavailable

SUBJECTS_PER_CALL: Final = 5_000
"""Ids of one question to consent (half of what it takes), unless one person has more."""

PEOPLE_PER_CALL: Final = 5_000


@dataclass(frozen=True, slots=True)
class Audience:
    """What is asked for.

    Attributes:
        workspace_id: the workspace.
        profile_ids: only these, UUIDs of canonical or merged profiles; ``None``: everybody.
        conditions: all of them have to hold.
        scheme: whose normalization.
        purpose: that has to be granted.
        country: of phone numbers without country code; empty: those are left out.
    """

    workspace_id: str
    profile_ids: Sequence[str] | None
    conditions: Sequence[Condition]
    scheme: Scheme
    purpose: str
    country: str = ""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A person as others may see one: the profile, and kind and text of each digest."""

    profile_id: str
    digests: Sequence[tuple[str, str]]


@dataclass(slots=True)
class Exported:
    """A page of an export.

    Attributes:
        people: whose consent allows it.
        withheld: how many could be hashed, but their consent does not allow it.
        unhashable: how many have nothing that can be hashed.
    """

    people: list[Hashed] = field(default_factory=list)
    withheld: int = 0
    unhashable: int = 0


class Audiences:
    """Exports of people.

    Args:
        people: who is in the graph.
        consent: who may be exported; ``None``: nobody can say, so nobody is.
    """

    def __init__(self, people: PeopleStore, consent: PurposeChecker | None) -> None:
        self._people = people
        self._consent = consent

    async def export(self, audience: Audience) -> AsyncIterator[Exported]:
        """The people of an audience, page by page.

        Raises:
            Unavailable: consent or the store does not answer, or identity was not told where consent is.
            NotFound: there is no such purpose.
        """
        if self._consent is None:
            raise Unavailable("consent", "identity was not told where consent is")
        # Before anybody is read: a purpose that does not exist is an error, not an empty audience.
        await self._consent.granted(audience.workspace_id, audience.purpose, [])
        async for page in self._people.pages(audience.workspace_id, audience.profile_ids, audience.conditions):
            exported = Exported()
            asked: list[tuple[Hashed, Asked]] = []
            for person in page:
                digests = audiences.digests(person.contacts, audience.scheme, audience.country)
                if digests:
                    asked.append((Hashed(person.profile_id, digests), person.subjects))
                else:
                    exported.unhashable += 1
            for part in _parts(asked):
                granted = await self._consent.granted(audience.workspace_id, audience.purpose, [subjects for _, subjects in part])
                exported.people += [hashed for (hashed, _), is_granted in zip(part, granted, strict=True) if is_granted]
                exported.withheld += granted.count(False)
            yield exported


def _parts(asked: Sequence[tuple[Hashed, Asked]]) -> Iterator[list[tuple[Hashed, Asked]]]:
    """The people of a page in questions that consent takes."""
    part: list[tuple[Hashed, Asked]] = []
    subjects = 0
    for hashed, own in asked:
        if part and (subjects + len(own) > SUBJECTS_PER_CALL or len(part) == PEOPLE_PER_CALL):
            yield part
            part, subjects = [], 0
        part.append((hashed, own))
        subjects += len(own)
    if part:
        yield part
