"""The batch engine on a real NATS server: settlement, order, hand-over, dead letters, halting."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cdi.error.v1 import error_pb2
from cdi.event.v1 import rejected_event_pb2
from cdi_cli.embedded import NatsServer
from cdi_kernel.faults import Fault, NotFound, Rejected, Unavailable
from cdi_kernel.topology import StreamName, collected, durable
from cdi_runtime.bus import Bus, Done, Message, Outcome, Outgoing, Reader, ReaderSpec, Reject, Retry, StopRule, connect, reading
from cdi_runtime.bus.partition import PIN_SECONDS
from cdi_runtime.service import ServiceContext
from cdi_testing import eventually

PARTITIONS = 2
TAKEOVER_SECONDS = 20
"""A dead owner's pin has expired by then, on a busy machine too; redelivery by JetStream, after a minute, has not begun."""


def spec(**changes: object) -> ReaderSpec[str]:
    fields: dict[str, object] = {"lanes": PARTITIONS, "partitions": PARTITIONS}
    return ReaderSpec("test", "test", StreamName.COLLECTED, bytes.decode, **(fields | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def running(bus: Bus, handle: Callable, reader_spec: ReaderSpec[str] | None = None) -> AsyncIterator[Reader[str]]:
    context = ServiceContext("test")
    async with reading(bus, reader_spec or spec(), handle, context) as reader:
        yield reader
    await context.end_tasks()
    assert context.failure is None


@pytest.fixture
async def bus(fresh_nats: NatsServer) -> AsyncIterator[Bus]:
    async with connect(fresh_nats.url, "test") as connected:
        yield connected


async def publish(bus: Bus, count: int, *, partition: int = 0, first: int = 0, payload: str = "") -> None:
    await bus.publish_all(
        [Outgoing(collected(partition), f"{payload}{n}".encode(), f"{partition}-{payload}-{n}") for n in range(first, first + count)]
    )


class Recorder:
    """Remembers bodies in the order of handling; settles them as ``decide`` says."""

    def __init__(self, decide: Callable[[Message[str], int], Outcome] | None = None) -> None:
        self.bodies: list[str] = []
        self.seen: dict[str, int] = {}
        self._decide = decide

    async def __call__(self, messages: Sequence[Message[str]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for message in messages:
            self.seen[message.body] = self.seen.get(message.body, 0) + 1
            outcome = self._decide(message, self.seen[message.body]) if self._decide else Done()
            outcomes.append(outcome)
        blocked = False
        for message, outcome in zip(messages, outcomes, strict=True):
            blocked = blocked or isinstance(outcome, Retry)
            if isinstance(outcome, Done) and not blocked:
                self.bodies.append(message.body)
        return outcomes


async def dead_letters(bus: Bus, count: int) -> list[rejected_event_pb2.DeadLetter]:
    return [
        rejected_event_pb2.DeadLetter.FromString((await bus.message(StreamName.DEAD_LETTERS, sequence)).payload)
        for sequence in range(1, count + 1)
    ]


async def test_messages_are_handled_in_order_and_settled(bus: Bus) -> None:
    recorder = Recorder()
    async with running(bus, recorder) as reader:
        await publish(bus, 500)
        await eventually(lambda: len(recorder.bodies) == 500)
        assert recorder.bodies == [str(n) for n in range(500)]
        assert reader.owned == {0}, "an empty partition is pinned with its first message"
        await eventually(lambda: settled(bus))


async def test_a_message_lingers_once_and_not_again_after_a_long_batch(bus: Bus) -> None:
    begun: list[tuple[float, int]] = []
    first_is_done = asyncio.Event()

    async def handle(messages: Sequence[Message[str]]) -> list[Outcome]:
        begun.append((time.monotonic(), len(messages)))
        await first_is_done.wait()
        return [Done()] * len(messages)

    async with running(bus, handle, spec(linger_seconds=2.0)) as reader:
        await publish(bus, 2)
        await eventually(lambda: begun)
        assert begun[0][1] == 2, "what comes within the time shares a batch"
        await publish(bus, 2, first=2)
        await asyncio.sleep(2.0)
        released = time.monotonic()
        first_is_done.set()
        await eventually(lambda: len(begun) == 2)
        assert begun[1][1] == 2
        assert begun[1][0] - released < 1.8
        assert reader.ready() is None


async def test_a_partition_that_is_given_away_while_its_batch_lingers_is_the_next_ones(bus: Bus) -> None:
    lingering, other = Recorder(), Recorder()
    async with running(bus, lingering, spec(linger_seconds=60.0)) as reader:
        for partition in range(PARTITIONS):
            await publish(bus, 1, partition=partition)
        await eventually(lambda: reader.owned == {0, 1})
        async with running(bus, other):
            await eventually(lambda: other.bodies, within=TAKEOVER_SECONDS)
            assert lingering.bodies == []


async def test_a_reader_that_can_fetch_no_more_does_not_linger(bus: Bus) -> None:
    recorder = Recorder()
    async with running(bus, recorder, spec(linger_seconds=60.0, max_events=100_000)):
        await publish(bus, 200, payload="x" * 10_000)
        await eventually(lambda: len(recorder.bodies) >= 50)


async def test_a_batch_lingers_for_the_usual_number_and_takes_what_waits_up_to_what_it_may_hold_now(bus: Bus) -> None:
    begun: list[int] = []
    first_may_end = asyncio.Event()

    async def handle(messages: Sequence[Message[str]]) -> list[Outcome]:
        begun.append(len(messages))
        await first_may_end.wait()
        return [Done()] * len(messages)

    async with running(bus, handle, spec(linger_seconds=60.0, max_events=10, most_now=lambda: 100_000)) as reader:
        try:
            await publish(bus, 10)
            await eventually(lambda: begun == [10])
            await publish(bus, 60, first=10, payload="x" * 10_000)
            await eventually(lambda: sum(feed.available for feed in reader._feeds) == 60)  # more than is fetched for ten
        finally:
            first_may_end.set()  # the reader drains when it is left
        await eventually(lambda: begun == [10, 60])


async def settled(bus: Bus) -> bool:
    return await bus.lag(StreamName.COLLECTED, "test", 0) == 0


REJECTION = Rejected(error_pb2.ERROR_REASON_SCHEMA_VIOLATION, "no")


@pytest.mark.parametrize(
    ("decide", "handled", "dead"),
    [
        pytest.param(lambda message, attempt: Done(), ["0", "1", "2"], [], id="done"),
        pytest.param(
            lambda message, attempt: Retry(0.05, "busy") if message.body == "1" and attempt < 3 else Done(),
            ["0", "1", "2"],
            [],
            id="retry holds what is behind it",
        ),
        pytest.param(
            lambda message, attempt: Reject(REJECTION) if message.body == "1" else Done(),
            ["0", "2"],
            ["1"],
            id="reject makes a dead letter",
        ),
        pytest.param(
            lambda message, attempt: (_ for _ in ()).throw(Unavailable("x", "away", retry_after=0.05)) if attempt < 3 else Done(),
            ["0", "1", "2"],
            [],
            id="retryable fault retries all",
        ),
        pytest.param(
            lambda message, attempt: (_ for _ in ()).throw(ZeroDivisionError) if message.body == "1" else Done(),
            ["0", "2"],
            ["1"],
            id="a bug is bisected to its message",
        ),
    ],
)
async def test_settlement(bus: Bus, decide: Callable, handled: list[str], dead: list[str]) -> None:
    recorder = Recorder(decide)
    await publish(bus, 3)
    async with running(bus, recorder):
        await eventually(lambda: settled(bus))
    assert list(dict.fromkeys(recorder.bodies)) == handled
    letters = await dead_letters(bus, len(dead))
    assert [letter.payload.decode() for letter in letters] == dead
    with pytest.raises(NotFound):
        await bus.message(StreamName.DEAD_LETTERS, len(dead) + 1)


async def test_an_undecodable_message_is_a_dead_letter_with_its_reason(bus: Bus) -> None:
    recorder = Recorder()
    await bus.publish(collected(0), b"\xff\xfe", message_id="bad")
    await publish(bus, 2)
    async with running(bus, recorder):
        await eventually(lambda: recorder.bodies == ["0", "1"])
    (letter,) = await dead_letters(bus, 1)
    assert (letter.reason, letter.payload, letter.sequence) == ("undecodable_message", b"\xff\xfe", 1)


async def test_a_waiting_partition_does_not_stop_the_other(bus: Bus) -> None:
    release = asyncio.Event()

    def decide(message: Message[str], attempt: int) -> Outcome:
        return Done() if message.partition == 1 or release.is_set() else Retry(0.05, "destination away")

    recorder = Recorder(decide)
    async with running(bus, recorder) as reader:
        await publish(bus, 5, partition=0, payload="a")
        await publish(bus, 5, partition=1, payload="b")
        await eventually(lambda: recorder.bodies == [f"b{n}" for n in range(5)])
        await eventually(lambda: reader.ready() == "reader test waits: destination away")
        release.set()
        await eventually(lambda: recorder.bodies[5:] == [f"a{n}" for n in range(5)])
        await eventually(lambda: reader.ready() is None)


async def test_nearly_only_rejections_halt_the_reader_without_acknowledging(bus: Bus) -> None:
    await publish(bus, 100)
    rule = StopRule(max_ratio=0.5, min_rejected=20)
    async with running(bus, Recorder(lambda message, attempt: Reject(REJECTION)), spec(stop_rule=rule)) as reader:
        await eventually(lambda: "stopped instead of draining" in (reader.ready() or ""))
    assert await bus.lag(StreamName.COLLECTED, "test", 0) >= 80


async def test_a_reader_that_starts_at_new_skips_what_is_there(bus: Bus) -> None:
    await publish(bus, 3)
    recorder = Recorder()
    async with running(bus, recorder, spec(start="new")):
        await publish(bus, 3, first=3)
        await eventually(lambda: recorder.bodies == ["3", "4", "5"])


async def test_a_reader_goes_on_where_it_was(bus: Bus) -> None:
    first, second = Recorder(), Recorder()
    async with running(bus, first):
        await publish(bus, 10)
        await eventually(lambda: len(first.bodies) == 10)
    await publish(bus, 10, first=10)
    async with running(bus, second):
        await eventually(lambda: second.bodies == [str(n) for n in range(10, 20)])


async def test_draining_hands_a_partition_over_at_once(fresh_nats: NatsServer, bus: Bus) -> None:
    first, second = Recorder(), Recorder()
    async with connect(fresh_nats.url, "second") as other:
        async with running(bus, first):
            await publish(bus, 5)
            await eventually(lambda: len(first.bodies) == 5)
        started = time.monotonic()
        await publish(bus, 5, first=5)
        async with running(other, second):
            await eventually(lambda: second.bodies == [str(n) for n in range(5, 10)])
        assert time.monotonic() - started < PIN_SECONDS - 1, "it waited until the pin of the first one expired"


async def test_replicas_share_the_partitions(fresh_nats: NatsServer, bus: Bus) -> None:
    async with connect(fresh_nats.url, "second") as other, running(bus, Recorder()) as first, running(other, Recorder()) as second:

        async def shared() -> bool:
            for partition in range(PARTITIONS):
                await publish(bus, 1, partition=partition, payload=str(time.monotonic_ns()))
            return first.owned | second.owned == {0, 1} and len(first.owned) == len(second.owned) == 1

        await eventually(shared)


async def test_a_restart_of_nats_loses_and_reorders_nothing(fresh_nats: NatsServer, bus: Bus) -> None:
    recorder = Recorder()
    async with running(bus, recorder):
        await publish(bus, 100)
        await eventually(lambda: len(recorder.bodies) > 10)
        fresh_nats.kill()
        with pytest.raises(Fault) as refused:
            await publish(bus, 1, first=1000)
        assert refused.value.retryable
        fresh_nats.start()
        await eventually(lambda: bus.ready() is None)
        await eventually(lambda: published(bus, 100, 100))
        await eventually(lambda: len(set(recorder.bodies)) >= 200)
    numbers = [int(body) for body in dict.fromkeys(recorder.bodies) if int(body) < 1000]
    assert numbers == list(range(200))


async def published(bus: Bus, count: int, first: int) -> bool:
    try:
        await publish(bus, count, first=first)
    except Unavailable:
        return False
    return True


async def test_kill_9_hands_partitions_over_in_order(fresh_nats: NatsServer, bus: Bus, tmp_path: Path) -> None:
    script = Path(__file__).with_name("reader_process.py")
    outputs = [tmp_path / "a.txt", tmp_path / "b.txt"]
    replicas = []
    for name, output in zip("ab", outputs, strict=True):
        command = [sys.executable, str(script), fresh_nats.url, name, str(PARTITIONS), "0.02"]
        with output.open("w") as sink:
            replicas.append(subprocess.Popen(command, stdout=sink))
    try:
        total = 0

        async def feed() -> None:
            nonlocal total
            for partition in range(PARTITIONS):
                await publish(bus, 20, partition=partition, first=total)
            total += 20

        await eventually(lambda: all_handled_by_both(outputs, feed))
        await feed()
        replicas[0].send_signal(signal.SIGKILL)
        replicas[0].wait()
        killed = time.monotonic()
        await feed()
        expected = {(p, str(n)) for p in range(PARTITIONS) for n in range(total)}
        await eventually(lambda: expected <= {(p, body) for output in outputs for p, body in lines(output)})
        assert time.monotonic() - killed < TAKEOVER_SECONDS
    finally:
        for replica in replicas:
            replica.kill()
            replica.wait()
    for partition in range(PARTITIONS):
        for output in outputs:
            numbers = [int(body) for p, body in lines(output) if p == partition]
            assert numbers == sorted(set(numbers)), "a replica handled something twice or out of order"


async def test_what_a_killed_owner_left_is_taken_over_without_new_messages(fresh_nats: NatsServer, bus: Bus, tmp_path: Path) -> None:
    output = tmp_path / "a.txt"
    script = Path(__file__).with_name("reader_process.py")
    await publish(bus, 40)
    with output.open("w") as sink:
        replica = subprocess.Popen([sys.executable, str(script), fresh_nats.url, "a", str(PARTITIONS), "0.5"], stdout=sink)
    try:
        await eventually(lambda: len(lines(output)) >= 5)
    finally:
        replica.kill()
        replica.wait()
    killed = time.monotonic()
    recorder = Recorder()
    async with running(bus, recorder):
        await eventually(lambda: recorder.bodies[-1:] == ["39"])
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    handled = [int(body) for _, body in lines(output)]
    rest = [int(body) for body in recorder.bodies]
    assert rest == list(range(rest[0], 40))
    assert rest[0] <= handled[-1] + 1


async def test_messages_above_the_fetch_limit_arrive_one_by_one(bus: Bus) -> None:
    large = [Outgoing(collected(0), bytes([65 + n]) * 3_000_000, f"large-{n}") for n in range(4)]
    small = [Outgoing(collected(0), b"small", "small")]
    await bus.publish_all([*large, *small])
    recorder = Recorder()
    async with running(bus, recorder):
        await eventually(lambda: len(recorder.bodies) == 5)
    assert [body[0] for body in recorder.bodies] == ["A", "B", "C", "D", "s"]


async def all_handled_by_both(outputs: list[Path], feed: Callable) -> bool:
    await feed()
    await asyncio.sleep(0.1)
    return all(lines(output) for output in outputs)


def lines(output: Path) -> list[tuple[int, str]]:
    rows = [line.split() for line in output.read_text().splitlines()]
    return [(int(row[0]), row[2]) for row in rows if len(row) == 3]


async def test_publishing_the_same_message_twice_stores_it_once(bus: Bus) -> None:
    first = await bus.publish(collected(0), b"x", message_id="same", headers={"Cdi-Events": "7"})
    second = await bus.publish(collected(0), b"x", message_id="same", headers={"Cdi-Events": "7"})
    assert (first.sequence, first.duplicate, second.duplicate) == (1, False, True)
    counts = await bus.count_events(StreamName.COLLECTED)
    assert (counts[collected(0)].messages, counts[collected(0)].events) == (1, 7)


async def test_a_durable_name_belongs_to_one_reader_and_partition() -> None:
    assert durable("router-main-ads", 3) != durable("router-main-ads", 4) != durable("router-main-crm", 4)
