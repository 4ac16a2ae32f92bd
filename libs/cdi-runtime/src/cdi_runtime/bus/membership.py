"""Which replicas of a reader live, and which of them a partition should go to.

This only balances the load. That exactly one replica works on a partition is the server's doing (a pinned priority group, see
``partition.py``); two replicas that disagree here for a moment cost nothing but a pull request.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import xxhash
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cdi_kernel.topology import members
from cdi_runtime.bus.connection import Bus

HEARTBEAT_SECONDS: Final = 1.0
"""Time between two signs of life."""

SILENCE_SECONDS: Final = 3.5
"""After so long without a sign of life a replica counts as dead."""


class Membership:
    """The living replicas of one reader, this one included."""

    def __init__(self, bus: Bus, reader: str, instance: str) -> None:
        self._bus = bus
        self._subject = members(reader)
        self._instance = instance
        self._seen: dict[str, float] = {}
        self._left = asyncio.Event()

    async def run(self) -> None:
        """Listens and gives signs of life until ``leave``."""
        subscription = await self._bus.client.subscribe(self._subject, cb=self._heard)
        while not self._left.is_set():
            await self._say(b"+")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), HEARTBEAT_SECONDS)
        with suppress(NatsError):
            await subscription.unsubscribe()

    async def leave(self) -> None:
        """Tells the others that this replica's partitions are free."""
        self._left.set()
        await self._say(b"-")

    def living(self) -> list[str]:
        """Ids of the living replicas, sorted."""
        oldest = asyncio.get_running_loop().time() - SILENCE_SECONDS
        others = {replica for replica, heard in self._seen.items() if heard >= oldest}
        return sorted(others if self._left.is_set() else others | {self._instance})

    def mine(self, partition: int) -> bool:
        """Whether this replica should work on a partition."""
        return preferred(self.living(), partition) == self._instance

    async def _say(self, sign: bytes) -> None:
        with suppress(NatsError):
            if self._bus.client.is_connected:
                await self._bus.client.publish(self._subject, sign + self._instance.encode())

    async def _heard(self, message: Msg) -> None:
        replica = message.data[1:].decode(errors="replace")
        if replica == self._instance:
            return
        if message.data[:1] == b"-":
            self._seen.pop(replica, None)
        else:
            self._seen[replica] = asyncio.get_running_loop().time()


def preferred(replicas: list[str], partition: int) -> str | None:
    """The replica that a partition should go to.

    Replicas take turns over the partitions in an order that is the same everywhere, so that shares differ by one at most; ``None``
    without replicas.
    """
    if not replicas:
        return None
    order = sorted(replicas, key=lambda replica: xxhash.xxh3_64_intdigest(replica.encode()))
    return order[partition % len(order)]
