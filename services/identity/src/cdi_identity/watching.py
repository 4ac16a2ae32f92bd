"""Watching a profile: its state now, and again after each change.

A watcher holds no queue: it is told that something changed and reads the profile as it is. So changes that come quickly are one answer, and
a slow caller gets the newest state. Nothing is missed: whenever changes may have passed unheard, every watcher reads again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

import msgspec
import xxhash

from cdi.error.v1 import error_pb2
from cdi_identity.domain.history import PROFILE_ID, Key
from cdi_identity.ports import StoredProfile
from cdi_identity.reading import Profiles
from cdi_kernel.faults import RateLimited, Unavailable

MAX_WATCHERS: Final = 1_000
"""Watchers of one replica."""

GATHER_SECONDS: Final = 0.05
"""How long a change waits for others before the profile is read."""

READ_AGAIN_SECONDS: Final = 60.0
"""A profile is read this often without having been told of a change, should a message ever have been dropped."""


class Watcher:
    """One caller's ear. Made by ``Watchers.watcher``."""

    def __init__(self, watchers: Watchers) -> None:
        self.told = asyncio.Event()
        self.followed: frozenset[str] = frozenset()
        self._watchers = watchers

    def follow(self, profile_ids: frozenset[str]) -> None:
        """Is told of changes of these profiles from now on, and of no others."""
        self._watchers.move(self, profile_ids)

    async def change(self) -> None:
        """Returns when there may be something new.

        Raises:
            Unavailable: this replica stops.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.told.wait(), READ_AGAIN_SECONDS)
        await asyncio.sleep(0 if self._watchers.closed else GATHER_SECONDS)
        if self._watchers.closed:
            raise Unavailable("identity", "this replica stops; watch again", retry_after=0.1)


class Watchers:
    """All watchers of this replica, by the profiles that they follow.

    Args:
        limit: watchers at most.
    """

    def __init__(self, limit: int = MAX_WATCHERS) -> None:
        self.closed = False
        self._limit = limit
        self._all: set[Watcher] = set()
        self._by_profile: dict[str, set[Watcher]] = {}

    def __bool__(self) -> bool:
        """Whether anybody watches."""
        return bool(self._all)

    @contextlib.contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """One more watcher, for the time of the block.

        Raises:
            RateLimited: there are too many.
        """
        if len(self._all) >= self._limit:
            raise RateLimited(error_pb2.ERROR_REASON_RATE_LIMITED, f"{self._limit} profiles are watched here already", retry_after=5.0)
        watcher = Watcher(self)
        self._all.add(watcher)
        try:
            yield watcher
        finally:
            watcher.follow(frozenset())
            self._all.discard(watcher)

    def move(self, watcher: Watcher, profile_ids: frozenset[str]) -> None:
        """Lets a watcher follow these profiles in the place of those that it followed."""
        for profile_id in watcher.followed - profile_ids:
            self._by_profile[profile_id].discard(watcher)
            if not self._by_profile[profile_id]:
                del self._by_profile[profile_id]
        for profile_id in profile_ids - watcher.followed:
            self._by_profile.setdefault(profile_id, set()).add(watcher)
        watcher.followed = profile_ids

    def changed(self, profile_ids: Iterable[str]) -> None:
        """Tells those who follow one of the profiles."""
        for profile_id in profile_ids:
            for watcher in self._by_profile.get(profile_id, ()):
                watcher.told.set()

    def missed(self) -> None:
        """Tells everybody: changes may have passed unheard."""
        for watcher in self._all:
            watcher.told.set()

    def close(self) -> None:
        """Ends all watching: their callers go on at another replica."""
        self.closed = True
        self.missed()


class WatchedProfiles:
    """The use case.

    Args:
        profiles: what is read.
        watchers: of this replica.
    """

    def __init__(self, profiles: Profiles, watchers: Watchers) -> None:
        self._profiles = profiles
        self._watchers = watchers

    async def watch(self, workspace_id: str, key: Key | None) -> AsyncIterator[StoredProfile]:
        """The profile of a key now, and again whenever it is another or has changed. Ends by a fault or when the caller leaves.

        Raises:
            NotFound: nobody has the key (any more).
            RateLimited: too many watch at this replica.
            Unavailable: the store does not answer, or this replica stops.
        """
        with self._watchers.watcher() as watcher:
            shown = b""
            while True:
                profile = await self._current(watcher, workspace_id, key)
                seen = xxhash.xxh3_128_digest(msgspec.msgpack.encode(profile))
                if seen != shown:
                    shown = seen
                    yield profile
                await watcher.change()

    async def _current(self, watcher: Watcher, workspace_id: str, key: Key | None) -> StoredProfile:
        """The profile as it is, with the watcher following it."""
        while True:
            watcher.told.clear()
            profile = await self._profiles.one(workspace_id, key)
            ids = {profile.profile_id}
            if key is not None and key[0] == PROFILE_ID:
                ids.add(key[1])
            if ids == watcher.followed:
                return profile
            watcher.follow(frozenset(ids))  # what changed since it was read is found by reading it again
