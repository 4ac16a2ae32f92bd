"""Every metric of the suite: name, unit, labels and meaning, in one place.

Rules, held by a test: names start with ``cdi_``, units are UCUM (``s``, ``By``, ``{event}``), every metric says what it counts,
labels come from the closed list ``LABELS``. Never an event, user, message or profile id as a label. Prometheus shows counters
with ``_total`` and units as words: ``cdi_stage_duration_seconds``. Calls are per batch, RPC or transaction, never per event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

LABELS = frozenset(
    {
        "class",  # of a delivery: delivered, retried, parked, refused
        "code",  # gRPC code name
        "destination",  # a configured destination's name
        "method",  # full gRPC method
        "outcome",  # of a settlement: done, retry, reject; of a transaction: committed, failed
        "partition",  # of the topology
        "protocol",  # http, grpc, webhook
        "reader",  # durable reader of a stream
        "reason",  # cdi.error.v1.ErrorReason in lower case, or a filter's name
        "stage",  # collect, enrich, deliver, load
        "stream",  # of the topology
        "table",  # of a warehouse
    }
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)

Kind = Literal["counter", "gauge", "histogram", "observed"]


@dataclass(frozen=True, slots=True)
class Described:
    """The entry of one metric in the registry."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: frozenset[str]
    buckets: Sequence[float] = ()


REGISTRY: dict[str, Described] = {}
"""All metrics by name."""


class _Instrument:
    """A registered metric. Before ``attach`` it counts nothing, so modules may use it at any time."""

    def __init__(self, described: Described) -> None:
        if described.name in REGISTRY:
            raise ValueError(f"{described.name} is registered twice")
        REGISTRY[described.name] = described
        _ALL.append(self)
        self.described = described

    def attach(self, meter: Meter) -> None:
        """Makes the OpenTelemetry instrument."""
        raise NotImplementedError

    def _labels(self, labels: dict[str, str]) -> dict[str, str]:
        if labels.keys() != self.described.labels:
            raise ValueError(f"{self.described.name} has the labels {sorted(self.described.labels)}, got {sorted(labels)}")
        return labels


_ALL: list[_Instrument] = []


class Counter(_Instrument):
    """Something that only grows."""

    _counter: metrics.Counter | None = None

    def attach(self, meter: Meter) -> None:
        described = self.described
        self._counter = meter.create_counter(described.name, described.unit, described.description)

    def add(self, amount: float, **labels: str) -> None:
        """Counts ``amount`` more. ``class`` is a Python word: pass ``**{"class": ...}``."""
        checked = self._labels(labels)
        if self._counter is not None and amount:
            self._counter.add(amount, checked)


class Gauge(_Instrument):
    """A value that is set."""

    _gauge: metrics._Gauge | None = None

    def attach(self, meter: Meter) -> None:
        described = self.described
        self._gauge = meter.create_gauge(described.name, described.unit, described.description)

    def set(self, value: float, **labels: str) -> None:
        """The value from now on."""
        checked = self._labels(labels)
        if self._gauge is not None:
            self._gauge.set(value, checked)


class Histogram(_Instrument):
    """A distribution."""

    _histogram: metrics.Histogram | None = None

    def attach(self, meter: Meter) -> None:
        described = self.described
        self._histogram = meter.create_histogram(described.name, described.unit, described.description)

    def record(self, value: float, **labels: str) -> None:
        """One more observation."""
        checked = self._labels(labels)
        if self._histogram is not None:
            self._histogram.record(value, checked)


def attach(meter: Meter, resident_memory: Callable[[CallbackOptions], Iterable[Observation]]) -> None:
    """Connects every registered metric to a meter; done once by ``telemetry.configure``."""
    for instrument in _ALL:
        instrument.attach(meter)
    memory = REGISTRY["cdi_process_resident_memory"]
    meter.create_observable_gauge(memory.name, [resident_memory], memory.unit, memory.description)


def _counter(name: str, unit: str, description: str, *labels: str) -> Counter:
    return Counter(Described(name, "counter", unit, description, frozenset(labels)))


def _gauge(name: str, unit: str, description: str, *labels: str) -> Gauge:
    return Gauge(Described(name, "gauge", unit, description, frozenset(labels)))


def _histogram(name: str, unit: str, description: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(Described(name, "histogram", unit, description, frozenset(labels), buckets))


EVENTS_RECEIVED = _counter("cdi_events_received", "{event}", "Events that arrived at the collector, good or bad.", "protocol")
EVENTS_ACCEPTED = _counter("cdi_events_accepted", "{event}", "Events that a stage passed on durably.", "stage")
EVENTS_REJECTED = _counter("cdi_events_rejected", "{event}", "Events that a stage turned away for good.", "stage", "reason")
EVENTS_FILTERED = _counter("cdi_events_filtered", "{event}", "Events left out by configuration or consent.", "stage", "reason")
EVENTS_SUPPRESSED = _counter("cdi_events_suppressed", "{event}", "Events of suppressed persons.", "stage")
EVENTS_DUPLICATE = _counter("cdi_events_duplicate", "{event}", "Events dropped because their id was seen before.", "stage")

BATCH_EVENTS = _histogram("cdi_batch_events", "{event}", "Events in one batch that a stage handled.", _SIZES, "stage")
STAGE_DURATION = _histogram("cdi_stage_duration", "s", "Time that a stage takes for one batch.", _SECONDS, "stage")
END_TO_END_LATENCY = _histogram(
    "cdi_end_to_end_latency", "s", "Time from receiving the oldest event of a batch to the end of a stage.", _SECONDS, "stage"
)

CONSUMER_LAG = _gauge("cdi_consumer_lag", "{message}", "Messages of a partition not yet delivered.", "stream", "reader", "partition")
CONSUMER_IN_FLIGHT = _gauge("cdi_consumer_in_flight", "{message}", "Messages fetched and not settled.", "stream", "reader")
CONSUMER_SETTLED = _counter("cdi_consumer_settled", "{message}", "Messages settled, by outcome.", "stream", "reader", "outcome")
PARTITIONS_OWNED = _gauge("cdi_partitions_owned", "{partition}", "Partitions this replica works on.", "stream", "reader")
DEAD_LETTERS = _counter("cdi_dead_letters", "{message}", "Messages put aside for operators.", "reader", "reason")

SPOOL_EVENTS = _gauge("cdi_spool_events", "{event}", "Events waiting in the collector's spool on disk.")
SPOOL_BYTES = _gauge("cdi_spool_size", "By", "Size of the collector's spool on disk.")
SPOOL_AGE = _gauge("cdi_spool_age", "s", "How long the oldest event has waited in the collector's spool.")

DELIVERIES = _counter("cdi_deliveries", "{event}", "Events sent to a destination, by class of the answer.", "destination", "class")
DELIVERIES_PARKED = _gauge("cdi_deliveries_parked", "{event}", "Events that wait for a retry.", "destination")

ROWS_LOADED = _counter("cdi_rows_loaded", "{row}", "Rows committed to the warehouse.", "table")
TABLE_FRESHNESS = _histogram(
    "cdi_table_freshness", "s", "Time from receiving the oldest event of a load to its visible row.", _SECONDS, "table"
)

RPC_SERVER_DURATION = _histogram("cdi_rpc_server_duration", "s", "Time to answer an RPC.", _SECONDS, "method", "code")
RPC_CLIENT_DURATION = _histogram("cdi_rpc_client_duration", "s", "Time until an RPC was answered.", _SECONDS, "method", "code")
STORE_TRANSACTION = _histogram("cdi_store_transaction_duration", "s", "Time of a database transaction.", _SECONDS, "outcome")
OUTBOX_PUBLISHED = _counter("cdi_outbox_published", "{message}", "Messages that left the outbox.")

REGISTRY["cdi_process_resident_memory"] = Described(
    "cdi_process_resident_memory", "observed", "By", "Resident memory of the process.", frozenset()
)
