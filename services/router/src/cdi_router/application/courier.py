"""Sending: batches, several requests at once, one person's events never past each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from cdi_kernel.faults import Fault
from cdi_router.domain.answer import Answer, Verdict
from cdi_router.domain.breaker import TOLERATED
from cdi_router.domain.delivery import Delivery, idempotency_key
from cdi_router.ports import Endpoint

Admit = Callable[[Sequence[Delivery]], Awaitable[Sequence[Delivery]]]
"""Those of the events of a request that may still be sent. Raises a ``Fault`` when nobody answers that."""


@dataclass(slots=True)
class Failure:
    """The earliest event of a person in a request that failed.

    Attributes:
        delivery: the event.
        answer: what came back.
        alone: the request held no other event.
    """

    delivery: Delivery
    answer: Answer
    alone: bool


@dataclass(slots=True)
class Round:
    """What became of the events of one ``deliver``; each is in exactly one of the four lists.

    Attributes:
        delivered: the destination took them.
        refused: it refused them for good.
        failed: per person the earliest event that may succeed later.
        behind: not to be sent now: behind a failed one, or not tried because the destination is down or for ``fault``.
        admit: asked before each request; who may not be sent any more is in none of the lists.
        answers: requests that the destination took or refused.
        fault: ``admit`` did not answer, and nothing was begun after that. What was sent before has to be stored, or it is sent again.
        down: nothing was answered in the end; what was left was not tried if more than a few people had failed.
    """

    admit: Admit
    delivered: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, Answer]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    behind: list[Delivery] = field(default_factory=list)
    answers: int = 0
    fault: Fault | None = None
    down: bool = False
    _blocked: set[bytes] = field(default_factory=set)

    def block(self, deliveries: Sequence[Delivery], answer: Answer) -> None:
        """A request failed: the first event of each person in it failed, the others wait behind it."""
        for delivery in deliveries:
            if delivery.person in self._blocked:
                self.behind.append(delivery)
            else:
                self._blocked.add(delivery.person)
                self.failed.append(Failure(delivery, answer, len(deliveries) == 1))

    def passable(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those of the deliveries whose person did not fail in this round; the others go behind."""
        if not self._blocked:
            return deliveries
        free = [delivery for delivery in deliveries if delivery.person not in self._blocked]
        if len(free) < len(deliveries):
            self.behind += [delivery for delivery in deliveries if delivery.person in self._blocked]
        return free

    @property
    def sent(self) -> bool:
        """Whether a request was made."""
        return bool(self.answers or self.failed)

    @property
    def retry_after(self) -> float | None:
        """The longest wait that an answer asked for."""
        return max((failure.answer.retry_after or 0.0 for failure in self.failed), default=0.0) or None


class Courier:
    """Sends deliveries of one destination."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._gates: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(endpoint.concurrency))

    def body(self, delivery: Delivery) -> bytes:
        """The request that sends a delivery alone."""
        return self._endpoint.compose([delivery.event])

    async def deliver(
        self, partition: int, deliveries: Sequence[Delivery], admit: Admit, *, alone: bool = False, probing: bool = False
    ) -> Round:
        """Sends deliveries of one partition, each person's in the order given.

        People are spread over lanes; a lane sends its batches one after the other and stops at its first failure. Then those who did
        not fail go on, until all are through or nothing is answered any more and more than a few people have failed.

        Args:
            partition: for the limit of requests under way.
            deliveries: in the order of acceptance.
            admit: asked before each request.
            alone: one event per request.
            probing: start with one event each of a few people, and go on only if one of them is answered.
        """
        made = Round(admit)
        pending = deliveries
        if probing and pending:
            probes, pending = _one_each(pending, TOLERATED)
            await self._pass(made, partition, [[probe] for probe in probes], 1)
            if made.down:
                made.behind += pending
                return made
        size = 1 if alone else self._endpoint.max_batch_events
        while pending := made.passable(pending):
            pending = await self._pass(made, partition, self._lanes(pending, size), size)
            if made.fault is not None or (made.down and len(made.failed) > TOLERATED):
                made.behind += pending
                break
        return made

    def _lanes(self, deliveries: Sequence[Delivery], size: int) -> Sequence[Sequence[Delivery]]:
        """As many lanes as there are full batches, so that concurrency does not cost batch size."""
        count = min(self._endpoint.concurrency, -(-len(deliveries) // size))
        if count <= 1:
            return [deliveries]
        lanes: list[list[Delivery]] = [[] for _ in range(count)]
        for delivery in deliveries:
            lanes[delivery.person[0] % count].append(delivery)
        return [lane for lane in lanes if lane]

    async def _pass(self, made: Round, partition: int, lanes: Sequence[Sequence[Delivery]], size: int) -> Sequence[Delivery]:
        """Runs the lanes until each is through or failed; returns what was not tried and notes whether nobody was answered."""
        before = made.answers
        if len(lanes) == 1:
            left = await self._lane(made, partition, lanes[0], size)
        else:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._lane(made, partition, lane, size)) for lane in lanes]
            left = [delivery for task in tasks for delivery in task.result()]
        made.down = made.answers == before
        return left

    async def _lane(self, made: Round, partition: int, lane: Sequence[Delivery], size: int) -> Sequence[Delivery]:
        for start in range(0, len(lane), size):
            if not await self._send(made, partition, lane[start : start + size]):
                return lane[start + size :]
        return ()

    async def _send(self, made: Round, partition: int, batch: Sequence[Delivery]) -> bool:
        """Sends one request, halving it while it is refused. False when a request failed or could not be admitted."""
        batch = made.passable(batch)
        try:
            if made.fault is None:
                batch = await made.admit(batch)
        except Fault as fault:
            made.fault = fault
        if made.fault is not None:
            made.behind += batch
            return False
        if not batch:
            return True
        body = self._endpoint.compose([delivery.event for delivery in batch])
        async with self._gates[partition]:
            answer = await self._endpoint.send(body, idempotency_key(batch))
        verdict = answer.verdict
        if verdict is Verdict.FAILED:
            made.block(batch, answer)
            return False
        made.answers += 1
        if verdict is Verdict.DELIVERED:
            made.delivered += batch
            return True
        if len(batch) == 1 or not answer.may_concern_one_event:
            made.refused += [(delivery, answer) for delivery in batch]
            return True
        middle = len(batch) // 2
        first = await self._send(made, partition, batch[:middle])
        return await self._send(made, partition, batch[middle:]) and first


def _one_each(deliveries: Sequence[Delivery], people: int) -> tuple[list[Delivery], list[Delivery]]:
    """The first event of each of the first ``people`` persons, and the rest; both in order."""
    seen: set[bytes] = set()
    first: list[Delivery] = []
    rest: list[Delivery] = []
    for delivery in deliveries:
        if len(seen) < people and delivery.person not in seen:
            seen.add(delivery.person)
            first.append(delivery)
        else:
            rest.append(delivery)
    return first, rest
