"""Single profiles that several callers ask for at the same time are read together.

Who comes alone reads for itself. While a statement is under way, whoever comes waits, and the next statement answers all who wait: a burst
costs a few round trips in the place of one for each. A statement begins after all whom it answers have come, so what it says was so at one
moment since then.

A caller who leaves takes nobody along: its statement answers nobody else, and one for those who wait belongs to none of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

from cdi_identity.ports import StoredProfile

Asked: TypeAlias = tuple[str, str, str]
"""Workspace and key (``domain.history.Key``)."""

Read: TypeAlias = Callable[[Sequence[Asked]], Awaitable[Mapping[int, StoredProfile | None]]]
"""Reads profiles in one statement, by the places of their keys. What would make the answer too large is left out, the first one never."""

MAX_KEYS: Final = 100
"""Keys of one statement, at most: the first of them should not wait for many others."""

_Waiting: TypeAlias = tuple[Asked, "asyncio.Future[StoredProfile | None]"]


class Gathering:
    """Those who wait for a profile; one statement is under way at a time.

    Args:
        read: see ``Read``.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: deque[_Waiting] = deque()
        self._under_way = False
        self._serving: asyncio.Task[None] | None = None

    async def one(self, asked: Asked) -> StoredProfile | None:
        """The profile of a key as of one moment after this call; ``None``: nobody has it. Raises what the statement raises."""
        if self._under_way:
            answer: asyncio.Future[StoredProfile | None] = asyncio.get_running_loop().create_future()
            self._waiting.append((asked, answer))
            return await answer
        self._under_way = True
        try:
            return (await self._read([asked]))[0]
        finally:
            if self._waiting:
                self._serving = asyncio.create_task(self._serve())
            else:
                self._under_way = False

    async def _serve(self) -> None:
        """Answers those who wait, some at a time, until there is nobody."""
        try:
            while taken := self._next():
                await self._answer(taken)
        finally:
            self._under_way = False

    def _next(self) -> Sequence[_Waiting]:
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < MAX_KEYS:
            one = self._waiting.popleft()
            if not one[1].done():  # its caller is still there
                taken.append(one)
        return taken

    async def _answer(self, taken: Sequence[_Waiting]) -> None:
        try:
            found = await self._read([asked for asked, _ in taken])
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(error)
            return
        for place, (_, answer) in enumerate(taken):
            if place in found and not answer.done():
                answer.set_result(found[place])
        self._waiting.extendleft(one for place, one in reversed(list(enumerate(taken))) if place not in found)
