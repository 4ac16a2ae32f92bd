"""What evaluating consent costs. ``python -m bench.consent``

One consent service with its own Postgres, asked in batches of 500 with one batch under way, for people of whom each has decided about every
purpose. Goal: 50,000 events/s on one core of the service. CPU is read from the operating system for whole processes, because the rate falls
with whatever else the machine does. Also: how long after a withdrawal was answered the next evaluation denies.
Writes build/bench/consent.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from rich.console import Console
from rich.table import Table

from bench.consent_signals import tc_string
from bench.meter import Meter
from cdi.consent.v1 import consent_service_pb2 as pb
from cdi.consent.v1 import purpose_pb2
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess

if TYPE_CHECKING:  # mypy-protobuf declares it, the generated module does not have it
    from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceAsyncStub

PEOPLE: Final = 5_000
BATCH: Final = 500
BATCHES: Final = 100
ROUNDS: Final = 3
WORKSPACE: Final = "main"
PURPOSES: Final = ("advertising", "analytics", "email")
GOAL_PER_SECOND: Final = 50_000
RESULT: Final = Path("build/bench/consent.json")
_EVALUATE: Final = "/cdi.consent.v1.ConsentService/EvaluateConsent"

Make = Callable[[int, random.Random], pb.ConsentInput]


def plain(person: int, _: random.Random) -> pb.ConsentInput:
    """An event that says nothing of consent: of a known person on a known device."""
    return pb.ConsentInput(workspace_id=WORKSPACE, message_id=f"m{person}", user_id=f"user-{person}", anonymous_id=f"device-{person}")


def carrying(person: int, rng: random.Random) -> pb.ConsentInput:
    """One that carries the answers that are in force, as a consent management platform's SDK sends them with every event."""
    given = plain(person, rng)
    given.event_time.FromSeconds(2)
    given.preferences.extend(pb.CategoryPreference(category=name, granted=answer(person, name)) for name in PURPOSES)
    return given


def unknown(person: int, rng: random.Random) -> pb.ConsentInput:
    """One of somebody who has decided nothing."""
    return plain(person + PEOPLE, rng)


def with_tc_string(person: int, rng: random.Random) -> pb.ConsentInput:
    """One with a TC string of its own, which no purpose asks about."""
    given = plain(person, rng)
    given.event_time.FromSeconds(2)
    given.has_preferences = True
    given.signals.add(kind="tcf", raw=tc_string(rng).encode())
    return given


CASES: Final[dict[str, Make]] = {"plain": plain, "carrying": carrying, "unknown": unknown, "tc-string": with_tc_string}


def answer(person: int, name: str) -> bool:
    """What a person has decided."""
    return (person * 7 + len(name)) % 3 > 0


def requests(make: Make) -> list[bytes]:
    """Batches of people in an order by chance."""
    rng = random.Random(7)
    batches = ([make(rng.randrange(PEOPLE), rng) for _ in range(BATCH)] for _ in range(BATCHES))
    return [pb.EvaluateConsentRequest(inputs=batch).SerializeToString() for batch in batches]


async def fill(stub: ConsentServiceAsyncStub) -> None:
    """Applies the purposes and records everybody's decisions, for the user id and the device."""
    for name in PURPOSES:
        await stub.ApplyPurpose(pb.ApplyPurposeRequest(purpose=purpose_pb2.Purpose(workspace_id=WORKSPACE, name=name)))
    for first in range(0, PEOPLE, BATCH):
        decisions: list[purpose_pb2.Decision] = []
        for person in range(first, first + BATCH):
            for kind, one in (("user_id", f"user-{person}"), ("anonymous_id", f"device-{person}")):
                for name in PURPOSES:
                    decision = purpose_pb2.Decision(workspace_id=WORKSPACE, subject_type=kind, subject_id=one, purpose=name, proof="bench")
                    decision.granted = answer(person, name)
                    decision.decide_time.FromSeconds(1)
                    decisions.append(decision)
        await stub.RecordDecisions(pb.RecordDecisionsRequest(decisions=decisions))


async def measured(channel: grpc.aio.Channel, batches: Sequence[bytes], parts: dict[str, int]) -> dict[str, float]:
    """Events per second, and CPU per event of each part in microseconds."""
    evaluate = channel.unary_unary(_EVALUATE, request_serializer=None, response_deserializer=None)
    meter = Meter(parts)
    meter.start()
    started = time.perf_counter()
    for batch in batches:
        answered = await evaluate(batch)
        if not answered:
            raise RuntimeError("an answer without results")
    seconds = time.perf_counter() - started
    meter.stop()
    events = len(batches) * BATCH
    used = {f"{part}_us": round(cpu / events * 1e6, 2) for part, cpu in meter.cpu_seconds.items()}
    return {"events_per_second": round(events / seconds), **used, "per_core": round(1e6 / max(used["consent_us"], 0.01))}


async def withdrawal_ms(stub: ConsentServiceAsyncStub) -> float:
    """From before a withdrawal is sent until an evaluation has denied, in milliseconds; the worst of some."""
    worst = 0.0
    for person in range(50):
        decision = purpose_pb2.Decision(
            workspace_id=WORKSPACE, subject_type="user_id", subject_id=f"user-{person}", purpose="email", granted=False, proof="bench"
        )
        started = time.perf_counter()
        await stub.RecordDecisions(pb.RecordDecisionsRequest(decisions=[decision]))
        found = (await stub.EvaluateConsent(pb.EvaluateConsentRequest(inputs=[plain(person, random.Random(1))]))).results[0]
        worst = max(worst, (time.perf_counter() - started) * 1e3)
        if "email" in found.granted_purposes:
            raise RuntimeError("an evaluation after a withdrawal has granted")
    return round(worst, 1)


async def run(directory: Path) -> dict[str, object]:
    """All cases in turns; of each the round with the least CPU of the service."""
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer(directory / "nats"))
        postgres = stack.enter_context(PostgresServer(directory / "postgres"))
        environment = {"CDI_NATS_URL": nats.url, "CDI_DATABASE_URL": postgres.create_database("consent")}
        service = ServiceProcess("consent", environment, directory)
        service.migrate()
        stack.enter_context(service)
        parts = {"consent": service.pid, "postgres": postgres.process.pid}
        async with grpc.aio.insecure_channel(service.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            stub: ConsentServiceAsyncStub = ConsentServiceStub(channel)
            await fill(stub)
            batches = {name: requests(make) for name, make in CASES.items()}
            best: dict[str, dict[str, float]] = {}
            for _ in range(ROUNDS):
                for name in CASES:
                    found = await measured(channel, batches[name], parts)
                    if name not in best or found["consent_us"] < best[name]["consent_us"]:
                        best[name] = found
            return {"cases": best, "withdrawal_ms": await withdrawal_ms(stub)}


def main() -> None:
    """Measures, prints a table and writes the figures."""
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(run(Path(directory)))
    table = Table("case", "events/s", "consent µs", "postgres µs", "events/s on one core of consent")
    cases: dict[str, dict[str, float]] = figures["cases"]  # type: ignore[assignment]
    for name, found in cases.items():
        row = (found["events_per_second"], found["consent_us"], found["postgres_us"], found["per_core"])
        table.add_row(name, *(f"{value:,}" for value in row))
    console = Console()
    console.print(table)
    console.print(f"a withdrawal holds after {figures['withdrawal_ms']} ms; goal {GOAL_PER_SECOND:,} events/s")
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "batch": BATCH, "people": PEOPLE}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, **figures}, indent=2))


if __name__ == "__main__":
    main()
