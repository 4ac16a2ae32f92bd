"""What the use cases of computed traits need from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cdi_identity.domain.computed_traits import ComputedTrait, Definition


class Contribution(NamedTuple):
    """What one event gave to one definition.

    Attributes:
        trait_id: of the definition.
        message_id: the event.
        profile_id: whose it was when it was resolved, a UUID.
        user_id: that counts for whose it is; empty if none.
        anonymous_id: likewise.
        time_us: when it happened, microseconds since 1970.
        value: JSON text; empty for the event counter.
    """

    trait_id: int
    message_id: str
    profile_id: str
    user_id: str
    anonymous_id: str
    time_us: int
    value: str


@dataclass(frozen=True, slots=True)
class ListedTrait:
    """A definition and how far its filling is.

    Attributes:
        definition: the definition.
        filled: earlier events have been counted too.
        fill_error: why filling does not go on; empty if it does.
    """

    definition: Definition
    filled: bool
    fill_error: str


@dataclass(frozen=True, slots=True)
class ValueNow:
    """A value of a person.

    Attributes:
        name: of the trait.
        value: JSON text.
        update_us: when it last changed, microseconds since 1970.
    """

    name: str
    value: str
    update_us: int


class ComputedTraitStore(Protocol):
    """Definitions, contributions and values. Every method raises a ``Transient`` fault when the store does not answer."""

    async def ids(self) -> tuple[int, ...]:
        """The ids of all definitions that hold now, of all workspaces, ascending: another answer, other definitions."""
        ...

    async def definitions(self) -> Sequence[Definition]:
        """All definitions that hold now, of all workspaces, by id."""
        ...

    async def apply(self, trait: ComputedTrait, limit: int) -> tuple[ComputedTrait, bool] | None:
        """Makes a definition be as given. Returns it with its version, and whether it was another before; ``None``: over the limit.

        Args:
            trait: its version is ignored.
            limit: definitions of a workspace.
        """
        ...

    async def delete(self, workspace_id: str, name: str) -> bool:
        """Retires a definition; false: there is none."""
        ...

    async def listed(self, workspace_id: str) -> Sequence[ListedTrait]:
        """The definitions of a workspace, by name."""
        ...

    async def values(self, workspace_id: str, profile_id: str, now_us: int) -> Sequence[ValueNow] | None:
        """The values of the person of a profile id (a UUID) as of a time, by name; ``None``: there is no such profile."""
        ...

    async def count(self, contributions: Sequence[Contribution], workspace_ids: Sequence[str], now_us: int) -> None:
        """Stores contributions that are not stored yet, computes the values that they change, and tells of them, in one transaction.

        Args:
            contributions: those to definitions that do not hold any more, of events that belong to nobody, and of events
                outside the window are left out.
            workspace_ids: of the definitions.
            now_us: the time, microseconds since 1970.
        """
        ...

    async def sweep_due(self, now_us: int, limit: int) -> int:
        """Computes values anew where something has left the window, and removes that. Returns of how many persons."""
        ...

    async def sweep_retired(self, now_us: int, limit: int) -> bool:
        """Removes some contributions to one retired definition with the values that rest on them; false: there is nothing to remove."""
        ...

    async def unfilled(self) -> Sequence[Definition]:
        """Definitions whose earlier events have not been counted."""
        ...

    async def fill_ended(self, trait_id: int, error: str) -> None:
        """Records that a definition is filled, or why it is not."""
        ...


class CountedEvent(Protocol):
    """An event, as far as counting needs it."""

    @property
    def workspace_id(self) -> str: ...
    @property
    def event_type(self) -> str:
        """As definitions name it: "track", …."""
        ...

    @property
    def name(self) -> str:
        """Empty where its type has none."""
        ...

    def look(self, path: str) -> object:
        """The decoded value at a path below it, ``json_values.MISSING`` where there is none."""
        ...

    def contribution(self, trait_id: int, value: str) -> Contribution | None:
        """What it gives to a definition; ``None``: it belongs to nobody."""
        ...


class EventArchive(Protocol):
    """The events of the warehouse."""

    def events(self, trait: ComputedTrait, since_us: int) -> AsyncIterator[Sequence[CountedEvent]]:
        """The events of a definition's type and names since a time, in pages, as far as they are a person's; every event at least once.

        What the definition looks at is there as far as the warehouse has a column of it.

        Raises:
            Unavailable: it does not answer, or there is none.
        """
        ...


class EventStream(Protocol):
    """Where ENRICHED stands. Every method raises ``Unavailable`` when NATS does not answer."""

    async def last_sequence(self) -> int:
        """Of the newest message."""
        ...

    async def loaded(self, sequence: int) -> bool:
        """Whether the warehouse holds all messages up to a sequence."""
        ...
