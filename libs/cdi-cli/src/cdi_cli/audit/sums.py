"""The sums of the audit, without asking anyone.

Per sink: accepted = duplicate + rejected + loaded or delivered + filtered + suppressed + dead-lettered + parked, what was enriched before
the sink existed, and what is on its way.
Accepted are the events in COLLECTED and those that the collector itself turned into rejected events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

ENRICHMENT: Final = "enrichment"
REJECTED: Final = "rejected"
EARLIER: Final = "earlier"
"""Outcome of events that were enriched before the sink existed."""

_SINKS: Final = ("destination:", "warehouse:")


@dataclass(frozen=True, slots=True)
class Count:
    """So many events had this outcome.

    Attributes:
        sink: the stage or sink.
        outcome: in lower case, such as ``dead_lettered``.
        events: how many.
        reason: public spelling; empty for success.
    """

    sink: str
    outcome: str
    events: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Events of bus messages that a consumer gave up on as a whole.

    Attributes:
        sink: the sink that will not get them; ``enrichment`` when no sink will.
        events: how many.
    """

    sink: str
    events: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What the bus and the services say at one time.

    Attributes:
        collected: events in COLLECTED since the installation began.
        rejected: events in REJECTED since then.
        waiting: sink → bus messages on their way to it; ``enrichment`` for messages that enrichment has not settled.
        counts: of enrichment, the router and the loader.
        lost: dead letters of the bus.
        sinks: every sink there is, those without a count too.
        earlier: sink → events that were enriched before it existed: a new destination gets what comes from then on.
        streams_whole: retention has removed nothing yet, so ``collected`` and ``rejected`` were counted in the streams themselves;
            otherwise they are enrichment's and the loader's own durable counts.
    """

    collected: int
    rejected: int
    waiting: Mapping[str, int]
    counts: tuple[Count, ...]
    lost: tuple[Lost, ...] = ()
    sinks: tuple[str, ...] = ()
    earlier: Mapping[str, int] = field(default_factory=dict)
    streams_whole: bool = True


@dataclass(frozen=True, slots=True)
class AuditLine:
    """The account of one sink, in events.

    Attributes:
        sink: ``destination:<name>``, ``warehouse:<name>`` or ``rejected`` (the table of rejected events).
        accepted: what it must account for.
        outcomes: outcome → events.
        unaccounted: what is left: on its way while messages wait, missing otherwise. Below zero: counted twice.
        waiting: bus messages on their way.
        reasons: outcome and reason → events, for those outcomes that have one.
    """

    sink: str
    accepted: int
    outcomes: Mapping[str, int]
    unaccounted: int
    waiting: int
    reasons: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Nothing is missing, nothing is counted twice; what is on its way is allowed."""
        return self.unaccounted == 0 or (self.unaccounted > 0 and self.waiting > 0)

    @property
    def settled(self) -> bool:
        """Balanced, and nothing is on its way."""
        return self.unaccounted == 0


def lines_of(reading: Reading) -> list[AuditLine]:
    """The account of every sink, by name, the table of rejected events last."""
    shared = _shared(reading)
    accepted = reading.collected + shared[REJECTED] - _of(reading.counts, ENRICHMENT, REJECTED)
    sinks = {count.sink for count in reading.counts if count.sink.startswith(_SINKS)} | set(reading.sinks)
    return [*(_line(reading, sink, accepted, shared) for sink in sorted(sinks)), _rejected_line(reading)]


def _shared(reading: Reading) -> Counter[str]:
    """What ended before the sinks and is the same for all of them."""
    shared: Counter[str] = Counter()
    for outcome in ("duplicate", "filtered", "suppressed"):
        shared[outcome] = _of(reading.counts, ENRICHMENT, outcome)
    shared[REJECTED] = reading.rejected
    shared["dead_lettered"] = sum(lost.events for lost in reading.lost if lost.sink == ENRICHMENT)
    return shared


def _line(reading: Reading, sink: str, accepted: int, shared: Counter[str]) -> AuditLine:
    outcomes = Counter(shared)
    reasons: Counter[tuple[str, str]] = Counter()
    for count in reading.counts:
        if count.sink == sink or (count.sink == ENRICHMENT and count.outcome in ("rejected", "filtered", "suppressed")):
            reasons[count.outcome, count.reason] += count.events
        if count.sink == sink:
            outcomes[count.outcome] += count.events
    outcomes["dead_lettered"] += sum(lost.events for lost in reading.lost if lost.sink == sink)
    outcomes[EARLIER] = reading.earlier.get(sink, 0)
    waiting = reading.waiting.get(sink, 0) + reading.waiting.get(ENRICHMENT, 0)
    named = {key: events for key, events in reasons.items() if key[1] and events}
    return AuditLine(sink, accepted, outcomes, accepted - outcomes.total(), waiting, named)


def _rejected_line(reading: Reading) -> AuditLine:
    """The table of rejected events: all that is in REJECTED must be in it."""
    loaded = [count for count in reading.counts if count.sink == REJECTED]
    outcomes = Counter({"loaded": sum(count.events for count in loaded)})
    outcomes["dead_lettered"] = sum(lost.events for lost in reading.lost if lost.sink == REJECTED)
    reasons = {("rejected", count.reason): count.events for count in loaded if count.events}
    left = reading.rejected - outcomes.total()
    return AuditLine(REJECTED, reading.rejected, outcomes, left, reading.waiting.get(REJECTED, 0), reasons)


def _of(counts: Iterable[Count], sink: str, outcome: str) -> int:
    return sum(count.events for count in counts if count.sink == sink and count.outcome == outcome)
