"""Where the CPU of one enriched event goes. ``python -m bench.enrichment_steps``

Runs the steps of ``cdi_enrichment.consumer`` in one process on a mix like a web shop's, without NATS, Postgres, consent and identity:
their requests and answers are made, serialized and parsed, the waiting is left out. Each figure is the best of several rounds.
Writes build/bench/enrichment-steps.json.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import garbage
from bench.traffic import bodies
from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1.tracking_plan_pb2 import EventRule, TrackingPlan
from cdi.event.v1.event_pb2 import Event, EventBatch
from cdi.identity.v1 import identity_service_pb2
from cdi_collector.domain.client_event import read_batch
from cdi_collector.domain.intake import Arrival, admit
from cdi_collector.domain.sources import Source
from cdi_enrichment import convert
from cdi_enrichment.domain import wire
from cdi_enrichment.domain.claims import Place, is_duplicate, wanted_claims
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.tracking_plan import PlanSnapshot, compile_plan
from cdi_enrichment.enrichers import REGISTRY, Enrichers, ReferenceFiles
from cdi_enrichment.publisher import enriched_messages
from cdi_enrichment.settings import packaged_countries
from cdi_kernel.ids import SourceId, WorkspaceId
from cdi_testing.builders import SOURCE, WORKSPACE

EVENTS: Final = 10_000
BATCH: Final = 1_000
PARTITIONS: Final = 8
ROUNDS: Final = 5
RESULT: Final = Path("build/bench/enrichment-steps.json")
SCHEMA: Final = json.dumps({"properties": {"properties": {"required": ["total"], "properties": {"total": {"type": "number"}}}}})


def batches() -> list[bytes]:
    """One partition of COLLECTED under the shop's traffic, as the collector makes it of HTTP bodies."""
    source = Source(WorkspaceId(WORKSPACE), SourceId(SOURCE), False, 1, frozenset())
    frames: list[bytes] = []
    for body in bodies(EVENTS * PARTITIONS):
        arrival = Arrival(source, time.time_ns() // 1_000, None, "127.0.0.1", "bench", PARTITIONS, lambda: "")
        frames += admit(read_batch(body)[1], arrival, {}).frames.get(0, ())
    return [b"".join(frames[at : at + BATCH]) for at in range(0, len(frames), BATCH)]


class Steps:
    """The best time of each step, in microseconds per event."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        spent = (time.process_time() - started) / EVENTS * 1e6
        self.best[name] = min(spent, self.best.get(name, spent))
        return result


def main() -> None:
    payloads = batches()
    files = ReferenceFiles(packaged_countries())
    enrichers = {f"enrich: {name} alone": Enrichers(files, disabled=REGISTRY.keys() - {name}) for name in REGISTRY}
    enrichers["enrich"] = Enrichers(files)
    rule = EventRule(type="track", event="Order Completed", json_schema=SCHEMA)
    plan = TrackingPlan(workspace_id=WORKSPACE, name="shop", source_ids=[SOURCE], rules=[rule], version=1)
    planned = PlanSnapshot(1, {(WORKSPACE, SOURCE): compile_plan(plan)})
    steps = Steps()
    garbage.calm()
    for _ in range(ROUNDS):
        _round(steps, payloads, enrichers, planned)
    total = sum(spent for name, spent in steps.best.items() if not name.startswith("("))
    table = Table("step", "µs/event")
    for name, spent in [*steps.best.items(), ("sum, without the plan", total)]:
        table.add_row(name, f"{spent:.2f}")
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    figures = {name: round(spent, 2) for name, spent in steps.best.items()} | {"sum": round(total, 2)}
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    RESULT.write_text(json.dumps({"machine": machine, "unit": "us_per_event", "figures": figures}, indent=2) + "\n")


def _round(steps: Steps, payloads: Sequence[bytes], enrichers: dict[str, Enrichers], planned: PlanSnapshot) -> None:
    batches = steps.run("decode", lambda: [list(EventBatch.FromString(payload).events) for payload in payloads])
    passages = steps.run("cut and key", lambda: _passages(payloads, batches))
    steps.run("duplicates (without the store)", lambda: _duplicates(passages))
    steps.run("(read with a tracking plan)", lambda: [passage.validate(planned) for passage in passages])
    steps.run("read", lambda: [passage.validate(PlanSnapshot()) for passage in passages])
    steps.run("consent: ask", lambda: b"".join(convert.consent_inputs(passages)))
    evaluated = consent_service_pb2.EvaluatedConsent(granted_purposes=["advertising", "analytics"], decision_ids=["d" * 36], linkable=True)
    answer = consent_service_pb2.EvaluateConsentResponse(results=[evaluated] * len(passages)).SerializeToString()
    steps.run("consent: take over", lambda: _consent(passages, answer))
    for name, enrich in enrichers.items():
        steps.run(name if name == "enrich" else f"({name})", partial(_enrich, enrich, passages))
    steps.run("identity: ask", lambda: b"".join(convert.identity_inputs(passages)))
    resolved = identity_service_pb2.ResolvedIdentity(profile_id="p" * 36)
    answer = identity_service_pb2.ResolveIdentitiesResponse(identities=[resolved] * len(passages)).SerializeToString()
    steps.run("identity: take over", lambda: _identity(passages, answer))
    steps.run("serialize", lambda: list(enriched_messages(passages, "")))
    if not passages[0].enrichments:
        raise AssertionError("nothing was enriched")


def _passages(payloads: Sequence[bytes], batches: Sequence[Sequence[Event]]) -> list[Passage]:
    return [
        Passage(event, Place(number, position), 0, collected)
        for number, (payload, batch) in enumerate(zip(payloads, batches, strict=True))
        for position, (event, collected) in enumerate(zip(batch, wire.each(payload, batch), strict=True))
    ]


def _duplicates(passages: Sequence[Passage]) -> None:
    wanted = wanted_claims((passage.key, passage.place) for passage in passages)
    assert not any(is_duplicate(passage.key, passage.place, wanted, {}) for passage in passages)


def _consent(passages: Sequence[Passage], answer: bytes) -> None:
    results = consent_service_pb2.EvaluateConsentResponse.FromString(answer).results
    for passage, result in zip(passages, results, strict=True):
        convert.set_consent(passage, result)


def _enrich(enrich: Enrichers, passages: Sequence[Passage]) -> None:
    for passage, enrichments in zip(passages, enrich([passage.subject for passage in passages]), strict=True):
        passage.enrichments = enrichments


def _identity(passages: Sequence[Passage], answer: bytes) -> None:
    identities = identity_service_pb2.ResolveIdentitiesResponse.FromString(answer).identities
    for passage, resolved in zip(passages, wire.each(answer, identities), strict=True):
        convert.set_identity(passage, resolved)


if __name__ == "__main__":
    main()
