"""Where the CPU of one enriched event goes. ``python -m bench.enrichment_steps``

Runs the steps of ``cdi_enrichment.consumer`` in one process on a mix like a web shop's, without NATS, Postgres, consent and identity:
their requests and answers are made, serialized and parsed, the waiting is left out. Each figure is the best of several rounds.
Writes build/bench/enrichment-steps.json.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from cdi.consent.v1 import consent_service_pb2
from cdi.enrichment.v1.tracking_plan_pb2 import EventRule, TrackingPlan
from cdi.event.v1.event_pb2 import Enrichments, Event, EventBatch
from cdi.identity.v1 import identity_service_pb2
from cdi_enrichment import convert
from cdi_enrichment.domain.claims import Place, claim_key, is_duplicate, wanted_claims
from cdi_enrichment.domain.passage import Passage
from cdi_enrichment.domain.tracking_plan import PlanSnapshot, compile_plan
from cdi_enrichment.enrichers import REGISTRY, Enricher, ReferenceFiles
from cdi_enrichment.publisher import enriched_messages
from cdi_enrichment.settings import packaged_countries
from cdi_testing.builders import SOURCE, WORKSPACE, identify, page, track

EVENTS: Final = 10_000
BATCH: Final = 2_000
ROUNDS: Final = 5
RESULT: Final = Path("build/bench/enrichment-steps.json")
AGENTS: Final = [
    f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"
    for system in ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "Linux; Android 14; Pixel 8")
    for version in range(100, 140)
]
REFERRERS: Final = ["https://www.google.com/", "https://www.bing.com/search?q=cd", "https://shop.example/", "https://t.co/x", ""]
SCHEMA: Final = json.dumps({"properties": {"properties": {"required": ["total"], "properties": {"total": {"type": "number"}}}}})


def mix(seed: int = 1) -> list[Event]:
    """60 % page views, 30 % tracks, 10 % identifies, of 2,000 people, with a context of about 700 bytes."""
    choose = random.Random(seed)
    return [_event(choose, number) for number in range(EVENTS)]


def _event(choose: random.Random, number: int) -> Event:
    person = choose.randrange(2_000)
    path = f"/p/{choose.randrange(500)}" + ("?utm_source=news&utm_medium=email&gclid=Cj0K" if choose.random() < 0.2 else "")
    context = {
        "userAgent": AGENTS[person % len(AGENTS)],
        "ip": f"{8 + person % 80}.{person % 251}.{person % 13}.9",
        "locale": "de-DE",
        "library": {"name": "analytics.js", "version": "2.11.1"},
        "page": {"url": f"https://shop.example{path}", "path": path, "referrer": choose.choice(REFERRERS), "title": "Shop", "search": ""},
        "consent": {"categoryPreferences": {"advertising": True, "analytics": True}},
        "screen": {"width": 1920, "height": 1080, "density": 2},
        "timezone": "Europe/Berlin",
    }
    who: dict[str, Any] = {"anonymous_id": f"a-{person}", "message_id": f"message-{number}", "context": context}
    kind = choose.random()
    if kind < 0.6:
        return page(properties={"title": "Shop", "path": path, "products": list(range(20))}, **who)
    if kind < 0.9:
        return track("Order Completed", properties={"total": 5.5, "currency": "EUR", "items": [{"sku": "x", "n": 1}] * 5}, **who)
    return identify(user_id=f"u-{person}", traits={"email": f"p{person}@mail{person % 50}.example", "plan": "pro"}, **who)


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
    events = mix()
    payloads = [EventBatch(events=events[i : i + BATCH]).SerializeToString() for i in range(0, EVENTS, BATCH)]
    enrichers = {name: make(ReferenceFiles(packaged_countries())) for name, make in REGISTRY.items()}
    rule = EventRule(type="track", event="Order Completed", json_schema=SCHEMA)
    plan = TrackingPlan(workspace_id=WORKSPACE, name="shop", source_ids=[SOURCE], rules=[rule], version=1)
    planned = PlanSnapshot(1, {(WORKSPACE, SOURCE): compile_plan(plan)})
    steps = Steps()
    # As the runtime does in a service.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
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


def _round(steps: Steps, payloads: Sequence[bytes], enrichers: dict[str, Enricher], planned: PlanSnapshot) -> None:
    batches = steps.run("decode", lambda: [list(EventBatch.FromString(payload).events) for payload in payloads])
    passages = steps.run(
        "keys",
        lambda: [
            Passage(event, Place(number, position), 0, claim_key(event.workspace_id, event.message_id))
            for number, batch in enumerate(batches)
            for position, event in enumerate(batch)
        ],
    )
    steps.run("duplicates (without the store)", lambda: _duplicates(passages))
    steps.run("(read with a tracking plan)", lambda: [passage.validate(planned) for passage in passages])
    steps.run("read", lambda: [passage.validate(PlanSnapshot()) for passage in passages])
    steps.run("consent: ask", lambda: convert.consent_request(passages).SerializeToString())
    evaluated = consent_service_pb2.EvaluatedConsent(granted_purposes=["advertising", "analytics"], decision_ids=["d" * 36], linkable=True)
    answer = consent_service_pb2.EvaluateConsentResponse(results=[evaluated] * len(passages)).SerializeToString()
    steps.run("consent: take over", lambda: _consent(passages, answer))
    for name, enrich in enrichers.items():
        steps.run(f"enrich: {name}", partial(_enrich, enrich, passages))
    steps.run("identity: ask", lambda: convert.identity_request(passages).SerializeToString())
    resolved = identity_service_pb2.ResolvedIdentity(profile_id="p" * 36)
    answer = identity_service_pb2.ResolveIdentitiesResponse(identities=[resolved] * len(passages)).SerializeToString()
    steps.run("identity: take over", lambda: _identity(passages, answer))
    steps.run("serialize", lambda: list(enriched_messages(passages, "")))
    if Enrichments() == passages[0].event.enrichments:
        raise AssertionError("nothing was enriched")


def _duplicates(passages: Sequence[Passage]) -> None:
    wanted = wanted_claims((passage.key, passage.place) for passage in passages)
    assert not any(is_duplicate(passage.key, passage.place, wanted, {}) for passage in passages)


def _consent(passages: Sequence[Passage], answer: bytes) -> None:
    results = consent_service_pb2.EvaluateConsentResponse.FromString(answer).results
    for passage, result in zip(passages, results, strict=True):
        convert.set_consent(passage.event, result)


def _enrich(enrich: Enricher, passages: Sequence[Passage]) -> None:
    for passage in passages:
        enrich(passage.subject, passage.event.enrichments)


def _identity(passages: Sequence[Passage], answer: bytes) -> None:
    identities = identity_service_pb2.ResolveIdentitiesResponse.FromString(answer).identities
    for passage, result in zip(passages, identities, strict=True):
        convert.set_identity(passage.event, result)


if __name__ == "__main__":
    main()
