"""The use case of filling: events from before a definition are counted out of the warehouse.

No gap: the stream's consumers are there, and each batch of the stream is counted by the definitions that are stored when it is handled.
So an event that is not counted from the stream was published before now, and the warehouse has it once the loader has settled all that
is published now. No double count: what an event gives has its message id, whichever way it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cdi_identity.computing import Counting
from cdi_identity.domain.computed_traits import Definition, Definitions
from cdi_identity.ports_computing import ComputedTraitStore, EventArchive, EventStream
from cdi_kernel.faults import Fault
from cdi_runtime.bus import Halt

LOOK_SECONDS: Final = 1.0
"""Between two looks for definitions that have to be filled, and at how far the loader is."""

AGAIN_SECONDS: Final = 10.0
"""Until a filling that failed begins again, from its beginning."""


class Filling:
    """Fills definitions, one after the other, while the stream is read. What two replicas fill is counted once.

    Args:
        store: definitions.
        counting: counts the events.
        archive: the warehouse.
        stream: ENRICHED.
        now_us: the clock, microseconds since 1970.
    """

    def __init__(
        self, store: ComputedTraitStore, counting: Counting, archive: EventArchive, stream: EventStream, now_us: Callable[[], int]
    ) -> None:
        self._store = store
        self._counting = counting
        self._archive = archive
        self._stream = stream
        self._now_us = now_us
        self._marks: dict[int, int] = {}

    async def run(self) -> None:
        """Fills until cancelled. The consumers of the stream have to be there."""
        while True:
            wait = LOOK_SECONDS
            try:
                for definition in await self._store.unfilled():
                    try:
                        if not await self._loaded(definition):
                            continue
                        await self._fill(definition)
                        error = ""
                    except (Fault, Halt) as problem:
                        error, wait = str(problem), AGAIN_SECONDS
                    await self._store.fill_ended(definition.trait_id, error)
            except Fault:
                wait = AGAIN_SECONDS  # the store is away, which readiness says
            await asyncio.sleep(wait)

    async def _loaded(self, definition: Definition) -> bool:
        """Whether the warehouse has all that was published when the definition was first seen here."""
        trait_id = definition.trait_id
        if trait_id not in self._marks:
            self._marks[trait_id] = await self._stream.last_sequence()
        return await self._stream.loaded(self._marks[trait_id])

    async def _fill(self, definition: Definition) -> None:
        only, window_us = Definitions([definition]), definition.trait.window_us
        since_us = self._now_us() - window_us if window_us else 0
        async for events in self._archive.events(definition.trait, since_us):
            await self._counting.count_for(only, events)
