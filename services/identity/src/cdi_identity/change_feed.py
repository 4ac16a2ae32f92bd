"""NATS in: which profiles changed, for those who watch them. Every replica hears everything; nothing is acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.message import DecodeError

from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_identity.watching import Watchers
from cdi_kernel import topology
from cdi_runtime.bus import Bus, listening

KIND: Final = "changed"


@asynccontextmanager
async def hearing_changes(bus: Bus, watchers: Watchers) -> AsyncIterator[None]:
    """Tells the watchers of changes while the block runs."""

    def heard(payload: bytes) -> None:
        if not watchers:
            return
        try:
            watchers.changed(_profiles(GraphChanged.FromString(payload)))
        except DecodeError:
            watchers.missed()

    async with listening(bus, topology.identity(KIND), heard, watchers.missed):
        yield


def _profiles(change: GraphChanged) -> Iterator[str]:
    for canonical in change.canonicals:
        yield canonical.profile_id
        yield canonical.canonical_profile_id
    for mapping in change.mappings:
        yield mapping.profile_id
    for trait in change.traits:
        yield trait.profile_id
    yield from change.reread_profile_ids
