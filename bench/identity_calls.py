"""A light client of the identity service: prepared requests, some under way, and every answer counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import grpc

from bench.http2_calls import Http2Calls, connected
from cdi.identity.v1 import identity_service_pb2 as pb
from cdi.identity.v1.profile_pb2 import Identifier

CALLS_UNDER_WAY: Final = 4
TIMEOUT_SECONDS: Final = 60.0
_RESOLVE: Final = "/cdi.identity.v1.IdentityService/ResolveIdentities"
_GET: Final = "/cdi.identity.v1.IdentityService/GetProfile"
_TICK_SECONDS: Final = 0.001


@dataclass(slots=True)
class Answered:
    """What a run saw.

    Attributes:
        seconds: from the first request to the last answer.
        events: that were resolved.
        created: profiles that they made.
        merged: profiles that they made part of others.
        demoted: identifiers that were left out.
        refused: calls of an open loop that were not answered: gRPC drops calls when more than a thousand wait.
        latencies: seconds of every call; in an open loop from when it was due.
    """

    seconds: float = 0.0
    events: int = 0
    created: int = 0
    merged: int = 0
    demoted: int = 0
    refused: int = 0
    latencies: list[float] = field(default_factory=list)


class IdentityCalls:
    """Calls to one service.

    Args:
        address: ``host:port``.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._resolve = self._channel.unary_unary(_RESOLVE, request_serializer=None, response_deserializer=None)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def resolve(self, requests: Iterable[bytes]) -> Answered:
        """Sends every request once, with some under way.

        Raises:
            grpc.aio.AioRpcError: one was not answered.
        """
        answered, waiting = Answered(), iter(requests)
        started = time.perf_counter()
        await asyncio.gather(*(self._caller(waiting, answered) for _ in range(CALLS_UNDER_WAY)))
        answered.seconds = time.perf_counter() - started
        return answered

    async def owners(self, requests: Iterable[bytes]) -> list[str]:
        """The profile id of every event, in order; asks one batch after the other.

        Raises:
            RuntimeError: an event changed the graph.
        """
        found: list[str] = []
        for payload in requests:
            answer = pb.ResolveIdentitiesResponse.FromString(await self._resolve(payload, timeout=TIMEOUT_SECONDS))
            if any(identity.created or identity.merged_profile_ids for identity in answer.identities):
                raise RuntimeError("asking changed the graph")
            found += [identity.profile_id for identity in answer.identities]
        return found

    async def profiles(self, questions: Sequence[tuple[bytes, Identifier]], per_second: float) -> Answered:
        """Asks at a constant rate whatever the answers do; latency counts from when a request was due.

        Raises:
            RuntimeError: an answer is not the profile that was asked for.
        """
        asking = _Asking([(payload, identifier.SerializeToString()) for payload, identifier in questions], per_second)
        calls = await connected(_GET, self._address)
        try:
            answered = await asking.run(calls)
        finally:
            calls.close()
        if answered.events + answered.refused < len(questions):
            raise RuntimeError("a profile does not have the identifier that it was asked for by")
        return answered

    async def _caller(self, waiting: Iterator[bytes], answered: Answered) -> None:
        for payload in waiting:
            sent = time.perf_counter()
            reply = await self._resolve(payload, timeout=TIMEOUT_SECONDS)
            answered.latencies.append(time.perf_counter() - sent)
            identities = pb.ResolveIdentitiesResponse.FromString(reply).identities
            answered.events += len(identities)
            for identity in identities:
                if identity.ByteSize() == _PLAIN_BYTES:
                    continue
                answered.created += identity.created
                answered.merged += len(identity.merged_profile_ids)
                answered.demoted += len(identity.demoted_identifiers)


class _Asking:
    """An open loop over single profiles.

    Args:
        questions: requests, each with what its answer has to hold.
        per_second: how many of them are due.
    """

    def __init__(self, questions: Sequence[tuple[bytes, bytes]], per_second: float) -> None:
        self._questions = questions
        self._per_second = per_second
        self._answered = Answered()
        self._left = len(questions)
        self._over = asyncio.Event()

    async def run(self, calls: Http2Calls) -> Answered:
        """Asks everything, and waits for all answers."""
        started = time.perf_counter()
        count = 0
        while count < len(self._questions):
            while count < min((time.perf_counter() - started) * self._per_second, len(self._questions)):
                payload, sought = self._questions[count]
                calls.call(payload, partial(self._take, started + count / self._per_second, sought))
                count += 1
            await asyncio.sleep(_TICK_SECONDS)
        await asyncio.wait_for(self._over.wait(), TIMEOUT_SECONDS)
        self._answered.seconds = time.perf_counter() - started
        return self._answered

    def _take(self, due: float, sought: bytes, message: bytes | None) -> None:
        if message is None:
            self._answered.refused += 1
        else:
            self._answered.latencies.append(time.perf_counter() - due)
            self._answered.events += sought in message
        self._left -= 1
        if not self._left:
            self._over.set()


_PLAIN_BYTES: Final = pb.ResolvedIdentity(profile_id="-" * 36).ByteSize()
"""Of an identity that says nothing but the profile's id."""
