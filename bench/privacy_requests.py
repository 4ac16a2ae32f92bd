"""A thousand erasures in one call through the whole suite, while events flow at a steady rate. ``make bench BENCH=privacy-requests``

All six services run as in ``whole_way``. Before the call, the people who will be erased have sent events; meanwhile others send, and
the age of each row when it becomes visible is measured before, during and after. At the end nothing of the erased is left in the
warehouse, and every event of the others is there once.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench import report, shop
from bench.traffic import EVENTS_PER_PERSON, bodies, percentile, send
from cdi.consent.v1 import privacy_pb2, privacy_service_pb2
from cdi.consent.v1.consent_service_pb2 import Subject
from cdi_cli.peers import Peers, ask, connect_peers
from cdi_cli.suite import Suite
from cdi_kernel.faults import Transient

REQUESTS = 1_000
PEOPLE_EVENTS = 20_000
"""Of twice as many people as are erased."""

RATE = 300
"""Events per second of the others."""

BATCH = 100
STEADY_SECONDS = 20
"""Before the call, and after its end."""

WITHIN_SECONDS = 240
"""For all requests to end; then what has ended is counted."""

_CHUNK = RATE * 5
_USER_ID = dict.fromkeys(("tracks", "pages", "identifies", "order_completed", "product_added"), "user_id")
_TABLES = {**_USER_ID, "users": "id", "external_id_mapping_updates": "external_id_value"}
"""Table → the column that names a person."""

_OVER = (privacy_pb2.PRIVACY_STATUS_FINISHED, privacy_pb2.PRIVACY_STATUS_PARTIAL_SUCCESS, privacy_pb2.PRIVACY_STATUS_FAILED)


@dataclass(slots=True)
class Flow:
    """The others' events: how many were sent, and how old each was when its row was seen, by phase."""

    phase: str = "before"
    sent: int = 0
    over: bool = False
    ages: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    async def feed(self, url: str) -> None:
        """Sends until it is over."""
        while not self.over:
            await send(url, bodies(_CHUNK, BATCH, first=PEOPLE_EVENTS + self.sent), rate=RATE / BATCH)
            self.sent += _CHUNK

    async def watch(self, peers: Peers) -> None:
        """Looks at what is new until it is over. A look that the loader turns away is made up for by the next one."""
        newest, looked = await shop.newest(peers), time.time()
        while not self.over:
            try:
                found, newest = await shop.new_rows(peers, newest)
            except Transient:
                found = []
            now = time.time()
            self.ages.setdefault(self.phase, []).extend(now - received for received, number in found for _ in range(number))
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - looked
            looked = now
            await asyncio.sleep(0.2)

    def figures(self) -> dict[str, float]:
        """Throughput and freshness of each phase."""
        found: dict[str, float] = {}
        for phase, ages in self.ages.items():
            found[f"{phase}_events_per_second"] = round(len(ages) / self.seconds[phase], 1)
            found[f"{phase}_freshness_p50_ms"] = round(percentile(ages, 0.5) * 1000)
            found[f"{phase}_freshness_p99_ms"] = round(percentile(ages, 0.99) * 1000)
        return found


def erased_ids() -> list[str]:
    """The user ids of those who are erased: of every three people in ``traffic`` one is not known."""
    known = [person for person in range(PEOPLE_EVENTS // EVENTS_PER_PERSON) if person % 3 != 0]
    return [f"user-{person:08d}" for person in known[:REQUESTS]]


async def erase(peers: Peers, ids: list[str]) -> tuple[float, float, Counter[str]]:
    """Seconds until the call is answered, seconds until all requests have ended or time is up, and how they stand then."""
    people = [privacy_service_pb2.PrivacyPerson(subjects=[Subject(type="user_id", id=one)]) for one in ids]
    privacy, started = await peers.privacy(), time.monotonic()
    answer = await ask(
        privacy.CreatePrivacyRequests,
        privacy_service_pb2.CreatePrivacyRequestsRequest(
            workspace_id=shop.WORKSPACE, verb=privacy_pb2.PRIVACY_VERB_SUPPRESS_WITH_DELETE, people=people
        ),
    )
    assert all(result.request_id for result in answer.results)
    answered = time.monotonic() - started
    listing = privacy_service_pb2.ListPrivacyRequestsRequest(workspace_id=shop.WORKSPACE, page_size=1_000)
    while True:
        requests = (await ask(privacy.ListPrivacyRequests, listing)).requests
        seconds = time.monotonic() - started
        if all(request.status in _OVER for request in requests) or seconds > WITHIN_SECONDS:
            return answered, seconds, Counter(privacy_pb2.PrivacyStatus.Name(request.status) for request in requests)
        await asyncio.sleep(1.0)


async def rows_of(peers: Peers, ids: list[str]) -> dict[str, int]:
    """Rows of these people by table. They are all whose user ids lie between the first and the last."""
    found: dict[str, int] = {}
    for table, column in _TABLES.items():
        sql = f"SELECT count(*) FROM {table} WHERE {column} BETWEEN '{ids[0]}' AND '{ids[-1]}'"
        ((number,),) = await shop.query(peers, sql)
        found[table] = int(float(str(number)))
    return found


async def run(directory: Path) -> dict[str, Any]:
    """A fresh suite, the three phases, and what is left."""
    shutil.rmtree(directory, ignore_errors=True)
    ids = erased_ids()
    with Suite(directory, sample_ratio=0.0) as suite:
        async with connect_peers(suite.endpoints) as peers:
            await shop.configure(peers)
            await send(suite.http_url, bodies(PEOPLE_EVENTS, BATCH))
            await shop.wait_for_rows(peers, 0, PEOPLE_EVENTS, within=120)
            before = await rows_of(peers, ids)
            flow = Flow()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(flow.feed(suite.http_url))
                tasks.create_task(flow.watch(peers))
                await asyncio.sleep(STEADY_SECONDS)
                flow.phase = "during"
                answered, ended, statuses = await erase(peers, ids)
                flow.phase = "after"
                await asyncio.sleep(STEADY_SECONDS)
                flow.over = True
            erased = before["tracks"] + before["pages"] + before["identifies"]
            await shop.wait_for_rows(peers, 0, PEOPLE_EVENTS - erased + flow.sent, within=60)
            await shop.check_rows(peers, PEOPLE_EVENTS, flow.sent)
            left = await rows_of(peers, ids)
    shutil.rmtree(directory, ignore_errors=True)
    return {
        "requests": len(ids),
        "statuses": dict(statuses),
        "answered_seconds": round(answered, 2),
        "ended_seconds": round(ended, 1),
        "rows_erased": before,
        "rows_left": left,
        **flow.figures(),
    }


def show(figures: Mapping[str, Any]) -> None:
    """The tables."""
    summary = [
        ["until the call was answered, s", f"{figures['answered_seconds']}"],
        ["until all requests had ended, s (60 of them before the second look)", f"{figures['ended_seconds']}"],
        ["how they stand then", str(figures["statuses"])],
        ["rows erased / left", f"{sum(figures['rows_erased'].values()):,} / {sum(figures['rows_left'].values())}"],
    ]
    report.show(f"{figures['requests']:,} erasures", ["figure", "value"], summary)
    rows = [
        [
            phase,
            f"{figures[f'{phase}_events_per_second']:.0f}",
            f"{figures[f'{phase}_freshness_p50_ms']} / {figures[f'{phase}_freshness_p99_ms']}",
        ]
        for phase in ("before", "during", "after")
    ]
    report.show(f"The flow, {RATE} events/s sent", ["phase", "events/s seen", "freshness p50 / p99 ms"], rows)


def main() -> int:
    """Runs, prints, writes; exit 1 when something of the erased is left, or a request did not finish."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    figures = uvloop.run(run(Path("build/bench/privacy-state")))
    show(figures)
    print(f"written to {report.write('privacy-requests', figures)}")
    finished = figures["statuses"].get("PRIVACY_STATUS_FINISHED", 0) + figures["statuses"].get("PRIVACY_STATUS_PARTIAL_SUCCESS", 0)
    return 1 if any(figures["rows_left"].values()) or finished != figures["requests"] else 0


if __name__ == "__main__":
    sys.exit(main())
