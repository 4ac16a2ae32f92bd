"""A collector with a spool, and NATS that comes and goes."""

import asyncio
import http.client
import re
import resource
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Self

import grpc
import psutil
import pytest

from cdi.collector.v1.collector_service_pb2 import EventInput, IngestEventsRequest
from cdi.collector.v1.collector_service_pb2_grpc import CollectorServiceStub
from cdi.event.v1 import event_pb2
from cdi_cli.embedded import NatsServer, ProcessFailed, ServiceProcess
from cdi_testing import eventually

from .conftest import ADMITTING, WRITE_KEY, Answer, Stored, apply_source, post
from .spooling import MEGABYTE, disk_of

PEOPLE = 6
CUT_OFF = (OSError, http.client.HTTPException)


def process(name: str, nats: NatsServer, database_url: str, directory: Path, **settings: str) -> ServiceProcess:
    environment = {
        "CDI_NATS_URL": nats.url,
        "CDI_DATABASE_URL": database_url,
        **ADMITTING,
        "CDI_SPOOL_DIRECTORY": str(directory / f"{name}-spool"),
        "CDI_SPOOL_SEGMENT_BYTES": str(64 * 1024),
        **settings,
    }
    return ServiceProcess("collector", environment, directory, name=name)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collector")


@pytest.fixture(scope="module")
def collector(module_nats: NatsServer, module_database_url: str, directory: Path) -> Iterator[ServiceProcess]:
    """With one source, ``acme/web``. Every test leaves it running, NATS running, and the spool empty."""
    with process("roomy", module_nats, module_database_url, directory) as made:
        apply_source(made, workspace_id="acme", source_id="web", write_keys=[WRITE_KEY])
        yield made


@pytest.fixture(scope="module")
def small(collector: ServiceProcess, module_nats: NatsServer, module_database_url: str, directory: Path) -> Iterator[ServiceProcess]:
    """One more, whose spool takes a megabyte."""
    with process("small", module_nats, module_database_url, directory, CDI_SPOOL_MAX_BYTES=str(MEGABYTE)) as made:
        yield made


def track(person: int, number: int, size: int = 10) -> dict[str, object]:
    return {"event": "X", "userId": f"u{person}", "messageId": f"{number:06d}", "properties": {"a": "x" * size}}


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def metric(collector: ServiceProcess, name: str) -> float:
    (value,) = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", get(collector.ops, "/metrics")[1], re.MULTILINE)
    return float(value)


def ready(collector: ServiceProcess) -> int:
    return get(collector.ops, "/readyz")[0]


def spool_files(collector: ServiceProcess) -> list[Path]:
    return sorted(Path(collector.environment["CDI_SPOOL_DIRECTORY"]).glob("*.spool"))


async def in_order(stored: Stored) -> dict[str, list[str]]:
    """Message ids per person as they were stored; of repetitions only the first."""
    order: dict[str, dict[str, None]] = {}
    for event in await stored.collected():
        order.setdefault(event.user_id, {})[event.message_id] = None
    return {person: list(numbers) for person, numbers in order.items()}


def differences(stored: dict[str, list[str]], answered: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """Of each person who does not have exactly what was answered: what only one side has, and what was stored behind a later one."""
    told = {}
    for person in stored.keys() | answered.keys():
        found, expected = stored.get(person, []), answered.get(person, [])
        if found != expected:
            told[person] = (sorted(set(found) ^ set(expected)), [after for before, after in pairwise(found) if after < before])
    return told


def drained(collector: ServiceProcess) -> bool:
    return not spool_files(collector)


def gone(file: Path) -> bool:
    return not file.exists()


class Traffic:
    """Each person sends its events one after the other, the same again until it is answered 200."""

    def __init__(self, collector: ServiceProcess, size: int = 10) -> None:
        self._collector = collector
        self._size = size
        self._going = True
        self._given_up = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = dict.fromkeys(range(PEOPLE), 0)
        self.refused = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(asyncio.to_thread(self._send, person)) for person in range(PEOPLE)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._given_up = True
        await asyncio.gather(*self._tasks)

    @property
    def total(self) -> int:
        return sum(self.answered.values())

    async def more(self, number: int = 300) -> None:
        before = self.total
        await eventually(lambda: self.total > before + number)

    async def end(self) -> dict[str, list[str]]:
        """What was answered 200, per person, when the spool has none of it any more."""
        self._going = False
        await asyncio.gather(*self._tasks)
        await eventually(lambda: drained(self._collector))
        return {f"u{person}": [f"{number:06d}" for number in range(count)] for person, count in self.answered.items()}

    def _send(self, person: int) -> None:
        while (self._unanswered(person) or self._going) and not self._given_up:
            pass

    def _unanswered(self, person: int) -> bool:
        try:
            status = post(self._collector, "/v1/track", track(person, self.answered[person], self._size)).status
        except CUT_OFF:
            return True
        if status != 200:
            self.refused += 1
            return True
        self.answered[person] += 1
        return False


async def test_nats_may_go_and_come_back_under_traffic(collector: ServiceProcess, stored: Stored, module_nats: NatsServer) -> None:
    async with Traffic(collector) as traffic:
        for _ in range(2):
            await traffic.more()
            module_nats.stop()
            await traffic.more()
            assert ready(collector) == 200
            await eventually(lambda: metric(collector, "cdi_spool_events") > 0)
            assert metric(collector, "cdi_spool_size_bytes") > 0
            assert metric(collector, "cdi_spool_age_seconds") > 0
            module_nats.start()
            await eventually(lambda: drained(collector))
            await traffic.more()
        answered = await traffic.end()
    assert traffic.refused == 0
    assert differences(await in_order(stored), answered) == {}
    assert len(await stored.collected()) == traffic.total, "once each"
    await eventually(lambda: metric(collector, "cdi_spool_events") == metric(collector, "cdi_spool_age_seconds") == 0)


async def test_every_kind_of_request_is_taken_while_nats_is_away(
    collector: ServiceProcess, stored: Stored, module_nats: NatsServer
) -> None:
    module_nats.stop()
    batch = [{"type": "track", **track(1, number)} for number in range(20)]
    assert post(collector, "/v1/batch", {"batch": [*batch, {"type": "zap"}]}).status == 200
    async with grpc.aio.insecure_channel(collector.grpc) as channel:
        event = EventInput(type=event_pb2.EVENT_TYPE_TRACK, name="X", user_id="u1", message_id="over-grpc")
        ingest = IngestEventsRequest(events=[event], write_key=WRITE_KEY)
        response = await CollectorServiceStub(channel).IngestEvents(ingest)
    assert [result.status.code for result in response.results] == [0]
    assert spool_files(collector)
    module_nats.start()
    await eventually(lambda: drained(collector))
    assert [event.message_id for event in await stored.collected()] == [*(f"{number:06d}" for number in range(20)), "over-grpc"]
    assert [event.reason for event in await stored.rejected()] == ["unknown_event_type"]


async def test_kill_9_while_spooling_and_while_draining_loses_nothing(
    collector: ServiceProcess, stored: Stored, module_nats: NatsServer
) -> None:
    within_a_drain = 0
    async with Traffic(collector, size=10_000) as traffic:
        for _ in range(2):
            module_nats.stop()
            await traffic.more(150)
            collector.kill()
            collector.start()  # NATS is still away
            await traffic.more(150)
            oldest = spool_files(collector)[0]
            module_nats.start()
            await eventually(partial(gone, oldest))
            collector.kill()
            within_a_drain += bool(spool_files(collector))
            collector.start()
            await eventually(lambda: drained(collector))
        answered = await traffic.end()
    assert within_a_drain > 0
    assert differences(await in_order(stored), answered) == {}


async def test_a_torn_tail_does_not_stop_the_start(collector: ServiceProcess, stored: Stored, module_nats: NatsServer) -> None:
    module_nats.stop()
    for number in range(3):
        assert post(collector, "/v1/track", track(1, number)).status == 200
    collector.kill()
    with spool_files(collector)[-1].open("r+b") as file:
        half = file.read()[:200]
        file.write(half)
    collector.start()
    assert "spool.torn_tail_cut" in collector.log_file.read_text()
    assert post(collector, "/v1/track", track(1, 3)).status == 200
    collector.terminate()
    assert collector.wait() == 0
    module_nats.start()
    collector.start()
    await eventually(lambda: drained(collector))
    assert [event.message_id for event in await stored.collected()] == [f"{number:06d}" for number in range(4)]


async def test_a_full_spool_means_503_until_nats_is_back(
    collector: ServiceProcess, small: ServiceProcess, stored: Stored, module_nats: NatsServer
) -> None:
    module_nats.stop()
    answered: list[str] = []

    def refused() -> Answer | None:
        number = len(answered)
        answer = post(small, "/v1/track", track(1, number, 30_000))
        if answer.status == 200:
            answered.append(f"{number:06d}")
        return answer if answer.status != 200 else None

    answer = await eventually(refused)
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "dependency_unavailable", "1")
    assert 25 < len(answered) < 35
    assert ready(small) == 503
    module_nats.start()
    await eventually(lambda: refused() is None)
    await eventually(lambda: drained(small))
    assert await in_order(stored) == {"u1": answered}
    assert ready(small) == 200


async def test_a_disk_that_takes_no_more_means_503(small: ServiceProcess, stored: Stored, module_nats: NatsServer) -> None:
    disk = psutil.Process(small.pid)
    module_nats.stop()
    batch = [{"type": "track", **track(1, number, 20_000)} for number in range(10)]
    await eventually(lambda: post(small, "/v1/track", track(1, 10)).status == 200)
    disk.rlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    assert small.log_file.stat().st_size < 50_000, "the log is under the same limit"
    answer = post(small, "/v1/batch", {"batch": batch})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ready(small) == 503
    disk.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await eventually(lambda: post(small, "/v1/track", track(1, 11)).status == 200)
    module_nats.start()
    await eventually(lambda: drained(small))
    assert await in_order(stored) == {"u1": ["000010", "000011"]}


async def test_a_full_file_system_means_503_until_there_is_room(
    collector: ServiceProcess, stored: Stored, module_nats: NatsServer, module_database_url: str, directory: Path
) -> None:
    with disk_of(2 * MEGABYTE, directory / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(MEGABYTE))
        with process("cramped", module_nats, module_database_url, directory, CDI_SPOOL_DIRECTORY=str(disk / "spool")) as cramped:
            module_nats.stop()
            async with Traffic(cramped, size=5_000) as traffic:
                refusal = await eventually(lambda: (answer := post(cramped, "/v1/track", track(9, 0, 30_000))).status != 200 and answer)
                assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
                assert ready(cramped) == 503
                await eventually(lambda: traffic.refused > PEOPLE)
                ballast.unlink()
                await traffic.more(50)
                module_nats.start()
                await eventually(lambda: drained(cramped))
                await traffic.more(50)
                answered = await traffic.end()
            await eventually(lambda: ready(cramped) == 200)
    in_streams = await in_order(stored)
    in_streams.pop("u9", None)
    assert in_streams == answered
    assert "spool.disk_error" in cramped.log_file.read_text()


async def test_two_collectors_do_not_share_a_spool(collector: ServiceProcess, tmp_path: Path) -> None:
    addresses = {"CDI_GRPC_ADDRESS", "CDI_OPS_ADDRESS", "CDI_HTTP_ADDRESS"}
    environment = {name: value for name, value in collector.environment.items() if name not in addresses}
    with pytest.raises(ProcessFailed, match="another collector uses the spool"):
        ServiceProcess("collector", environment, tmp_path).start()
