"""NATS in: COLLECTED. The way of the data, from top to bottom.

decode (engine) → drop duplicates → validate → consent → enrich → identity → publish → progress and counts → done.
Consent comes before identity: an event that may not be linked to a person is never written into the graph. An event of somebody who is
suppressed, or was erased after it was received, ends there: it is counted, and neither enriched nor rejected.
Whatever raises a retryable fault on the way makes the engine hold the lane and bring the same messages again; every step bears that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from cdi.error.v1 import error_pb2
from cdi.event.v1 import event_pb2, outcome_pb2
from cdi_enrichment import convert
from cdi_enrichment.application import IdentifierPlaces, TrackingPlans
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.claims import Place, is_duplicate, wanted_claims
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.rejection import STAGE, Rejection, of_fault, rejected_event
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_enrichment.enrichers import Enrichers
from cdi_enrichment.metrics import record
from cdi_enrichment.ports import START, Advance, Claims, ConsentEvaluator, IdentityResolver, Position, Progress, Publisher
from cdi_enrichment.publisher import enriched_messages, rejected_messages
from cdi_enrichment.tracing import traced
from cdi_kernel.faults import Fault, reason_name
from cdi_runtime.bus import Done, Message, Outcome, isolate

SUPPRESSED: Final = reason_name(error_pb2.ERROR_REASON_SUPPRESSED)
Collected = Message[event_pb2.EventBatch]


@dataclass(frozen=True, slots=True)
class Outside:
    """What the pipeline talks to."""

    claims: Claims
    progress: Progress
    consent: ConsentEvaluator
    identity: IdentityResolver
    places: IdentifierPlaces
    bus: Publisher


class Consumer:
    """Handles batches of collected messages; several at once, each of other partitions.

    Args:
        outside: stores, peers and the bus.
        plans: gives the snapshot that a batch is checked against.
        enrichers: those that are switched on.
        version: of this service, for rejected events.
    """

    def __init__(self, outside: Outside, plans: TrackingPlans, enrichers: Enrichers, version: str) -> None:
        self._outside = outside
        self._plans = plans
        self._enrichers = enrichers
        self._version = version

    async def handle(self, messages: Sequence[Collected]) -> Sequence[Outcome]:
        """Takes the messages of one lane to ENRICHED and REJECTED; an outcome each."""
        started = time.perf_counter()
        progress = await self._outside.progress.read({message.partition for message in messages})
        new = [message for message in messages if not _is_done(message, progress.get(message.partition, START))]
        arrived = [passage for message in new for passage in _passages(message)]
        with traced(arrived) as traceparent:
            first = await self._drop_duplicates(new, arrived)
            results = await isolate(first, partial(self._process, self._plans.snapshot), stage=STAGE)
            passed, rejected = _sorted_out(first, results)
            kept = await self._keepable(rejected)
            await self._publish(passed, kept, traceparent)
            moves = _moves(new, progress, first, arrived, passed, kept)
            await self._outside.progress.advance(moves)
        record(moves.values(), arrived, time.perf_counter() - started)
        return [Done()] * len(messages)

    async def _drop_duplicates(self, messages: Sequence[Collected], arrived: Sequence[Passage]) -> Sequence[Passage]:
        wanted = wanted_claims((passage.key, passage.place) for passage in arrived)
        foreign = await self._outside.claims.claim(wanted, {message.sequence: message.partition for message in messages})
        if not foreign and len(wanted) == len(arrived):
            return arrived
        return [passage for passage in arrived if not is_duplicate(passage.key, passage.place, wanted, foreign)]

    async def _process(self, plans: PlanSnapshot, passages: Sequence[Passage]) -> list[Rejection | None]:
        """The steps that may fail on an event, for events in order; a rejection for each that was turned away."""
        verdicts = [passage.validate(plans) for passage in passages]
        valid = [passage for passage, verdict in zip(passages, verdicts, strict=True) if verdict is None]
        tombstones = await self._evaluate_consent(valid)
        kept = [passage for passage in valid if not passage.suppressed]
        self._enrich(kept)
        await self._resolve_identities(kept, tombstones)
        return verdicts

    async def _keepable(self, rejected: Sequence[tuple[Passage, Rejection]]) -> Sequence[tuple[Passage, Rejection]]:
        """Those that may be kept: a rejected event is stored with all that it says. Few are rejected, so they ask on their own."""
        evaluated = await self._outside.consent.evaluate(convert.suppression_inputs(passage for passage, _ in rejected))
        return [one for one, result in zip(rejected, evaluated.results, strict=True) if not result.suppressed]

    async def _evaluate_consent(self, passages: Sequence[Passage]) -> int | None:
        """Judges the events; returns the generation of the tombstones that counted."""
        regions = self._enrichers.regions([passage.subject for passage in passages])
        evaluated = await self._outside.consent.evaluate(convert.consent_inputs(passages, regions))
        for passage, result in zip(passages, evaluated.results, strict=True):
            convert.set_consent(passage, result)
            if result.dropped_columns:
                passage.drop(result.dropped_columns)
        return evaluated.tombstones

    def _enrich(self, passages: Sequence[Passage]) -> None:
        found = self._enrichers([passage.subject for passage in passages])
        for passage, enrichments in zip(passages, found, strict=True):
            passage.enrichments = enrichments
            if passage.subject.external:
                convert.set_external_ids(passage)

    async def _resolve_identities(self, passages: Sequence[Passage], tombstones: int | None) -> None:
        linkable = [passage for passage in passages if passage.linkable]
        places = await self._outside.places.of({passage.workspace_id for passage in linkable})
        results = await self._outside.identity.resolve(convert.identity_inputs(linkable, places), tombstones)
        for passage, result in zip(linkable, results, strict=True):
            convert.set_identity(passage, result)
        for passage in passages:
            if not passage.linkable:
                convert.set_fallback_identity(passage)

    async def _publish(self, passed: Sequence[Passage], rejected: Sequence[tuple[Passage, Rejection]], traceparent: str) -> None:
        now = Timestamp()
        now.GetCurrentTime()
        records = [(p, rejected_event(p.event, p.place, why, version=self._version, rejected_time=now)) for p, why in rejected]
        await self._outside.bus.publish_all([*enriched_messages(passed, traceparent), *rejected_messages(records)])


def _is_done(message: Collected, progress: Position) -> bool:
    """Whether a message was finished and only its acknowledgement got lost. A stream made anew stores later, whatever its sequences."""
    return message.sequence <= progress.sequence and message.stored_us <= progress.stored_us


def _passages(message: Collected) -> list[Passage]:
    sequence, partition, events = message.sequence, message.partition, message.body.events
    collected = enumerate(wire.each(message.payload, events))
    return [Passage(event, Place(sequence, n), partition, raw) for event, (n, raw) in zip(events, collected, strict=True)]


def _sorted_out(
    passages: Sequence[Passage], results: Sequence[Rejection | Fault | None]
) -> tuple[list[Passage], list[tuple[Passage, Rejection]]]:
    passed: list[Passage] = []
    rejected: list[tuple[Passage, Rejection]] = []
    for passage, result in zip(passages, results, strict=True):
        if result is None:
            if not passage.suppressed:
                passed.append(passage)
        else:
            rejected.append((passage, of_fault(result) if isinstance(result, Fault) else result))
    return passed, rejected


def _moves(
    messages: Sequence[Collected],
    progress: dict[int, Position],
    first: Sequence[Passage],
    arrived: Sequence[Passage],
    passed: Sequence[Passage],
    rejected: Sequence[tuple[Passage, Rejection]],
) -> dict[int, Advance]:
    """How far each partition comes with this batch, and what became of its events."""
    moves: dict[int, Advance] = {}
    for message in messages:
        before = progress.get(message.partition, START)
        move = moves.setdefault(message.partition, Advance(before, before))
        move.after = Position(message.sequence, message.stored_us)
    accepted = Counter(passage.partition for passage in arrived)
    distinct = Counter(passage.partition for passage in first)
    enriched = Counter(passage.partition for passage in passed)
    turned_away = Counter((passage.partition, rejection.reason_name) for passage, rejection in rejected)
    for partition, move in moves.items():
        reasons = {reason: n for (of, reason), n in turned_away.items() if of == partition}
        duplicates = accepted[partition] - distinct[partition]
        suppressed = distinct[partition] - enriched[partition] - sum(reasons.values())
        move.counts[outcome_pb2.OUTCOME_ACCEPTED, ""] = accepted[partition]
        move.counts[outcome_pb2.OUTCOME_DUPLICATE, ""] = duplicates
        move.counts[outcome_pb2.OUTCOME_ENRICHED, ""] = enriched[partition]
        move.counts[outcome_pb2.OUTCOME_SUPPRESSED, SUPPRESSED] = suppressed
        move.counts.update({(outcome_pb2.OUTCOME_REJECTED, reason): n for reason, n in reasons.items()})
    return moves
