"""The use cases of computed traits: define them, count events, read values.

Exact whatever comes again, late or out of order: what an event gives is stored once per event and definition, by the message id, and the
value of a person is what all of that comes to (``store.computed_values``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from cdi.error.v1 import error_pb2
from cdi_identity.domain.computed_traits import MAX_DEFINITIONS, ComputedTrait, Definition, Definitions, problems
from cdi_identity.ports_computing import ComputedTraitStore, Contribution, CountedEvent, ListedTrait, ValueNow
from cdi_kernel.faults import InvalidArgument, NotFound
from cdi_runtime.bus import isolate


class ComputedTraits:
    """Definitions and values.

    Args:
        store: where they are kept.
        now_us: the clock, microseconds since 1970.
    """

    def __init__(self, store: ComputedTraitStore, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us

    async def apply(self, trait: ComputedTrait) -> tuple[ComputedTrait, bool]:
        """Makes a definition be as given. Returns it with its version, and whether it was another one before.

        Raises:
            InvalidArgument: with one violation per mistake.
        """
        violations = list(problems(trait))
        applied = None if violations else await self._store.apply(trait, MAX_DEFINITIONS)
        if applied is None:
            violations = violations or [("name", f"a workspace has at most {MAX_DEFINITIONS}")]
            raise InvalidArgument(
                "the computed trait is not valid", field_violations=[(f"trait.{name}", text) for name, text in violations]
            )
        return applied

    async def delete(self, workspace_id: str, name: str) -> None:
        """Removes a definition; its values are gone for readers at once.

        Raises:
            NotFound: there is none.
        """
        if not await self._store.delete(workspace_id, name):
            metadata = {"resource": "computed_trait", "name": "name"}
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such computed trait", metadata=metadata)

    async def listed(self, workspace_id: str) -> Sequence[ListedTrait]:
        """The definitions of a workspace, by name."""
        return await self._store.listed(workspace_id)

    async def values(self, workspace_id: str, profile_id: str | None) -> Sequence[ValueNow]:
        """The values of a person as of now, by name.

        Raises:
            NotFound: nobody has the id; ``None`` is one that nobody can have.
        """
        values = None if profile_id is None else await self._store.values(workspace_id, profile_id, self._now_us())
        if values is None:
            raise NotFound(error_pb2.ERROR_REASON_NOT_FOUND, "no such profile", metadata={"resource": "profile", "name": "profile_id"})
        return values


class Counting:
    """Counts events for the definitions that hold when it is asked. An event on which that fails is logged and left out.

    Args:
        store: definitions and contributions.
        now_us: the clock, microseconds since 1970.
        changed: called after a commit that may have put something into the outbox.
    """

    def __init__(self, store: ComputedTraitStore, now_us: Callable[[], int], changed: Callable[[], None]) -> None:
        self._store = store
        self._now_us = now_us
        self._changed = changed
        self._definitions = Definitions()

    async def count(self, events: Sequence[CountedEvent]) -> None:
        """Counts events; done again, it changes nothing.

        The definitions are those of a moment after the call: an event that was handed over after a definition was stored is counted for it.

        Raises:
            Transient: the store does not answer; nothing of it is promised.
            Halt: it fails on nearly all of them.
        """
        if await self._store.ids() != self._definitions.ids:
            self._definitions = Definitions(await self._store.definitions())
        await self.count_for(self._definitions, events)

    async def count_for(self, definitions: Definitions, events: Sequence[CountedEvent]) -> None:
        """Counts events for some definitions; see ``count``."""
        await isolate(events, partial(self._count, definitions), stage="computed-traits")

    async def _count(self, definitions: Definitions, events: Sequence[CountedEvent]) -> Sequence[None]:
        given = list(_contributions(events, definitions))
        if given:
            workspace_ids = list({definition.trait.workspace_id: None for definition, _ in given})
            await self._store.count([contribution for _, contribution in given], workspace_ids, self._now_us())
            self._changed()
        return [None] * len(events)


def _contributions(events: Iterable[CountedEvent], definitions: Definitions) -> Iterator[tuple[Definition, Contribution]]:
    for event in events:
        for definition in definitions.of(event.workspace_id, event.event_type, event.name):
            value = definition.trait.given(event.look)
            contribution = None if value is None else event.contribution(definition.trait_id, value)
            if contribution is not None:
                yield definition, contribution
