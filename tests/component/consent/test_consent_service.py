"""Consent as a process over real Postgres and NATS: the answers, the ledger, the outbox, and what failures do to them."""

import asyncio
import contextlib
import http.client
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from cdi.consent.v1.consent_service_pb2 import (
    ApplyPurposeRequest,
    CategoryPreference,
    CheckPurposeRequest,
    ConsentInput,
    EvaluateConsentRequest,
    EvaluatedConsent,
    ListDecisionsRequest,
    ListPurposesRequest,
    RecordDecisionsRequest,
    RecordResult,
    Subject,
    SubjectSet,
)
from cdi.consent.v1.consent_service_pb2_grpc import ConsentServiceStub
from cdi.consent.v1.purpose_pb2 import DEFAULT_POLICY_ALLOW, DEFAULT_POLICY_UNSPECIFIED, Decision, DecisionsRecorded, Purpose
from cdi_cli.embedded import NatsServer, PostgresServer, ServiceProcess
from cdi_kernel import topology
from cdi_kernel.faults import NotFound
from cdi_kernel.topology import StreamName
from cdi_runtime.bus import Bus, Message, connect
from cdi_testing import eventually
from cdi_testing.builders import message_id
from cdi_testing.plugin import StartService

Client = Callable[[ServiceProcess], ConsentServiceStub]


class Scene:
    """The workspace of the running test."""

    workspace = ""


@pytest.fixture(autouse=True)
def own_workspace() -> None:
    Scene.workspace = f"ws-{message_id()}"


START = 1_600_000_000
"""Unix seconds at which the decisions of a test begin."""

HOUR = 3_600
ANSWERABLE = ("advertising", "analytics")


def at(second: float) -> Timestamp:
    """An instant some seconds after the start."""
    return Timestamp(seconds=START + int(second), nanos=int(second % 1 * 1_000) * 1_000_000)


def purpose(name: str = "advertising", **fields: Any) -> Purpose:
    """A purpose that is denied until granted."""
    return Purpose(**({"workspace_id": Scene.workspace, "name": name} | fields))


async def apply(stub: ConsentServiceStub, *purposes: Purpose) -> None:
    """Applies purposes; by default ``advertising``, and ``analytics``, which is allowed and needed for linking."""
    defaults = (purpose(), purpose("analytics", default_policy=DEFAULT_POLICY_ALLOW, required_for_linking=True))
    for one in purposes or defaults:
        await stub.ApplyPurpose(ApplyPurposeRequest(purpose=one))


def event(user_id: str = "ada", second: float = 0, preferences: Mapping[str, bool] | None = None, **fields: Any) -> ConsentInput:
    """An event of a known person."""
    values: dict[str, Any] = {
        "workspace_id": Scene.workspace,
        "message_id": message_id(),
        "user_id": user_id,
        "event_time": at(second),
        "preferences": [CategoryPreference(category=name, granted=granted) for name, granted in (preferences or {}).items()],
    }
    return ConsentInput(**(values | fields))


def decision(granted: bool, second: float = 0, **fields: Any) -> Decision:
    """A decision of Ada on advertising."""
    values: dict[str, Any] = {
        "workspace_id": Scene.workspace,
        "subject_type": "user_id",
        "subject_id": "ada",
        "purpose": "advertising",
        "granted": granted,
        "decide_time": at(second),
        "proof": "form 7",
    }
    return Decision(**(values | fields))


async def evaluate(stub: ConsentServiceStub, *inputs: ConsentInput) -> list[EvaluatedConsent]:
    """The results of one batch."""
    return list((await stub.EvaluateConsent(EvaluateConsentRequest(inputs=inputs))).results)


async def record(stub: ConsentServiceStub, *decisions: Decision) -> list[RecordResult]:
    """Records decisions in one request."""
    return list((await stub.RecordDecisions(RecordDecisionsRequest(decisions=decisions))).results)


async def ledger(stub: ConsentServiceStub, subject_id: str = "ada", subject_type: str = "user_id") -> list[Decision]:
    """The first page of a subject's ledger, newest first."""
    request = ListDecisionsRequest(workspace_id=Scene.workspace, subject_type=subject_type, subject_id=subject_id, page_size=1_000)
    return list((await stub.ListDecisions(request)).decisions)


def granted(results: Iterable[EvaluatedConsent]) -> list[set[str]]:
    """The granted purposes of each result."""
    return [set(result.granted_purposes) for result in results]


# Behaviour


async def test_a_purpose_has_versions_and_the_same_document_changes_nothing(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    first = await stub.ApplyPurpose(ApplyPurposeRequest(purpose=purpose(categories=["b", "a", "a"])))
    again = await stub.ApplyPurpose(ApplyPurposeRequest(purpose=purpose(categories=["a", "b"], version=9)))
    changed = await stub.ApplyPurpose(ApplyPurposeRequest(purpose=purpose(categories=["a"])))
    assert (first.changed, first.purpose.version, list(first.purpose.categories)) == (True, 1, ["a", "b"])
    assert first.purpose.default_policy == DEFAULT_POLICY_UNSPECIFIED
    assert (again.changed, again.purpose) == (False, first.purpose)
    assert (changed.changed, changed.purpose.version) == (True, 2)
    listed = (await stub.ListPurposes(ListPurposesRequest(workspace_id=Scene.workspace))).purposes
    assert list(listed) == [changed.purpose]


async def test_a_carried_answer_is_recorded_once_and_published(consent: ServiceProcess, client: Client, bus: Bus) -> None:
    stub = client(consent)
    await apply(stub)
    batch = [event(anonymous_id="browser"), event(second=1, preferences={"advertising": True}), event(second=2)]
    first = await evaluate(stub, *batch)
    assert granted(first) == [{"analytics"}, {"advertising", "analytics"}, {"advertising", "analytics"}]
    assert await evaluate(stub, *batch) == first
    (line,) = await ledger(stub)
    assert (line.granted, line.decide_time, line.proof) == (True, at(1), batch[1].message_id)
    assert first[2].decision_ids == [line.decision_id]
    (message,) = await eventually(lambda: announced(bus, 1))
    assert message.subject == topology.consent(Scene.workspace)
    assert DecisionsRecorded.FromString(message.payload) == DecisionsRecorded(decisions=[line])


async def test_refused_decisions_leave_the_others(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub)
    results = await record(
        stub,
        decision(True, purpose="nonsense"),
        decision(True, subject_type="email"),
        decision(True, subject_id="a\0b"),
        decision(True, proof="p" * 1_001),
        decision(True, decide_time=at(4_000_000_000)),
        decision(True, second=5),
        decision(False, second=3),
    )
    codes = [code_pb2.Code.Name(result.status.code) for result in results]
    assert codes == ["NOT_FOUND", *["INVALID_ARGUMENT"] * 4, "OK", "OK"]
    assert [result.index for result in results] == list(range(7))
    assert [line.decision_id for line in await ledger(stub)] == [results[5].decision_id, results[6].decision_id]
    assert granted(await evaluate(stub, event())) == [{"advertising", "analytics"}]


async def check(stub: ConsentServiceStub, name: str, *people: Mapping[str, str]) -> list[bool]:
    """Whether a purpose is granted; people as id → type."""
    sets = [SubjectSet(subjects=[Subject(type=kind, id=one) for one, kind in person.items()]) for person in people]
    return list((await stub.CheckPurpose(CheckPurposeRequest(workspace_id=Scene.workspace, purpose=name, people=sets))).granted)


async def test_people_are_granted_by_all_their_ids(replicas: Any, client: Client) -> None:
    stub = client(replicas.one)
    await apply(stub)
    await record(stub, decision(True), decision(False, subject_id="eve"), decision(False, subject_id="b2", subject_type="anonymous_id"))
    people = (
        {"ada": "user_id"},
        {"ada": "user_id", "b1": "anonymous_id"},
        {"ada": "user_id", "b1": "anonymous_id", "b2": "anonymous_id"},
        {"ada": "user_id", "eve": "user_id"},
        {"b1": "anonymous_id"},
        {"ada": "email", "a\0": "user_id"},
        {},
    )
    assert await check(stub, "advertising", *people) == [True, True, False, False, False, False, False]
    assert await check(stub, "analytics", *people) == [True] * 7
    assert await check(stub, "advertising") == []
    await record(stub, decision(False, second=1))
    other = client(replicas.two)
    await eventually(lambda: knows_purposes(other))
    assert await check(other, "advertising", people[0]) == [False]
    assert len(await ledger(stub)) == 2


async def test_questions_about_a_purpose_that_break_a_rule(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub)
    many: dict[str, str] = {f"u{number}": "user_id" for number in range(10_001)}
    for name, people, code in (
        ("nonsense", [], grpc.StatusCode.NOT_FOUND),
        ("", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("advertising", [{}] * 5_001, grpc.StatusCode.INVALID_ARGUMENT),
        ("advertising", [many], grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(stub, name, *people)
        assert refused.value.code() is code


async def test_a_request_recorded_twice_gives_the_same_ids(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub)
    request = [decision(True, 1), decision(True, 2), decision(False, 3), decision(False, 3)]
    first = await record(stub, *request)
    assert await record(stub, *request) == first
    assert len(await ledger(stub)) == 3


async def test_ids_that_cannot_be_kept_are_no_subjects(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub)
    answer = {"advertising": True}
    odd = [event("a\0b", preferences=answer), event("x" * 100_000, preferences=answer), event("", preferences=answer)]
    odd += [event(workspace_id="a\0b"), event(message_id="m\0", preferences={"adv\0": True, "y" * 9_999: False})]
    longest = event("\U0001f600" * 512, preferences=answer, message_id="m\0")
    results = await evaluate(stub, *odd, longest, event("bob", anonymous_id="a\0b", preferences=answer))
    assert [len(result.decision_ids) for result in results] == [0, 0, 0, 0, 0, 1, 1]
    assert granted(results)[:3] == [{"analytics"}] * 3


async def test_requests_that_break_a_rule(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    subject = {"workspace_id": Scene.workspace, "subject_type": "user_id", "subject_id": "ada"}
    for call in (
        stub.ApplyPurpose(ApplyPurposeRequest(purpose=purpose(""))),
        stub.ApplyPurpose(ApplyPurposeRequest(purpose=purpose("a\0b"))),
        stub.ListPurposes(ListPurposesRequest(workspace_id=Scene.workspace, page_size=-1)),
        stub.ListPurposes(ListPurposesRequest(workspace_id=Scene.workspace, page_token="%")),
        stub.ListPurposes(ListPurposesRequest(workspace_id="")),
        stub.ListDecisions(ListDecisionsRequest(**subject, page_token="bm9uc2Vuc2U=")),
        stub.ListDecisions(ListDecisionsRequest(**(subject | {"subject_id": ""}))),
        stub.EvaluateConsent(EvaluateConsentRequest(inputs=[ConsentInput()] * 5_001)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_pages_cover_everything_once(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub, *(purpose(f"p{number}") for number in range(5)), purpose("p2", description="second version"))
    await record(stub, *(decision(bool(number % 2), number // 2, purpose=f"p{number % 5}") for number in range(20)))
    names: list[str] = []
    token = ""
    while token or not names:
        purposes = await stub.ListPurposes(ListPurposesRequest(workspace_id=Scene.workspace, page_size=2, page_token=token))
        names += [one.name for one in purposes.purposes]
        token = purposes.next_page_token
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    lines: list[Decision] = []
    while token or not lines:
        decisions = await stub.ListDecisions(
            ListDecisionsRequest(workspace_id=Scene.workspace, subject_type="user_id", subject_id="ada", page_size=3, page_token=token)
        )
        lines += decisions.decisions
        token = decisions.next_page_token
    assert lines == await ledger(stub)
    assert [line.decide_time.seconds for line in lines] == sorted((line.decide_time.seconds for line in lines), reverse=True)
    assert len({line.decision_id for line in lines}) == 20


async def test_the_ledger_cannot_be_changed(consent: ServiceProcess, client: Client) -> None:
    stub = client(consent)
    await apply(stub)
    await record(stub, decision(True))
    connection = await asyncpg.connect(consent.environment["CDI_DATABASE_URL"])
    try:
        for table in ("ledger", "purposes"):
            for statement in (f"UPDATE {table} SET workspace_id = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(asyncpg.RestrictViolationError):
                    await connection.execute(statement)
    finally:
        await connection.close()
    assert len(await ledger(stub)) == 1


# Replicas and failures


async def test_a_withdrawal_holds_at_once_on_the_other_replica(replicas: Any, client: Client) -> None:
    one, two = map(client, (replicas.one, replicas.two))
    await apply(one)
    await eventually(lambda: knows_purposes(two))
    for round_ in range(20):
        await record(one, decision(True, 2 * round_))
        assert granted(await evaluate(two, event())) == [{"advertising", "analytics"}]
        await record(two, decision(False, 2 * round_ + 1))
        assert granted(await evaluate(one, event())) == [{"analytics"}]


async def test_what_one_replica_learns_of_odd_ids_the_other_one_knows_at_once(replicas: Any, client: Client) -> None:
    stubs = list(map(client, (replicas.one, replicas.two)))
    await apply(stubs[0])
    await eventually(lambda: knows_purposes(stubs[1]))
    people = ["Zoë", "\U0001f600", "a:b\x1f", "\\\"'", " ", "x" * 512]
    events = [event(person, anonymous_id=f"{person[:9]}-device") for person in people]
    for second in range(4):
        answer, writer = {"advertising": second % 2 == 0}, stubs[second % 2]
        for stub in stubs:
            await evaluate(stub, *events)
        await evaluate(writer, *(event(one.user_id, second, answer, anonymous_id=one.anonymous_id) for one in events))
        expected = {"advertising", "analytics"} if answer["advertising"] else {"analytics"}
        for stub in stubs:
            assert granted(await evaluate(stub, *events)) == [expected] * len(people)


async def test_what_is_remembered_goes_with_the_changes_that_are_no_longer_told(
    replicas: Any, client: Client, module_database_url: str
) -> None:
    one, two = map(client, (replicas.one, replicas.two))
    await apply(one)
    await eventually(lambda: knows_purposes(two))
    connection = await asyncpg.connect(module_database_url)
    try:
        for statements in (
            # A change that is removed before the second replica has looked again, as if it had slept.
            (
                "DELETE FROM current_decisions WHERE subject_id = 'ada'",
                "DELETE FROM changed_subjects",
                "UPDATE change_horizon SET xid = (pg_current_xact_id()::text::bigint + 1)::text::xid8",
            ),
            # The whole table, of which only the horizon tells.
            ("TRUNCATE current_decisions",),
        ):
            await record(one, decision(True, 0, proof=message_id()))
            assert granted(await evaluate(two, event())) == [{"advertising", "analytics"}]
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
            assert granted(await evaluate(two, event())) == [{"analytics"}]
    finally:
        await connection.close()


async def test_a_decision_that_is_taken_out_of_the_table_is_gone_at_once(
    consent: ServiceProcess, client: Client, module_database_url: str
) -> None:
    stub = client(consent)
    await apply(stub)
    await record(stub, decision(True, 0))
    assert granted(await evaluate(stub, event())) == [{"advertising", "analytics"}]
    connection = await asyncpg.connect(module_database_url)
    try:
        await connection.execute("DELETE FROM current_decisions WHERE workspace_id = $1", Scene.workspace)
    finally:
        await connection.close()
    assert granted(await evaluate(stub, event())) == [{"analytics"}]


async def test_replicas_writing_about_the_same_people_neither_deadlock_nor_disagree(replicas: Any, client: Client, bus: Bus) -> None:
    stubs = list(map(client, (replicas.one, replicas.two)))
    await apply(stubs[0])
    await eventually(lambda: knows_purposes(stubs[1]))
    draw = random.Random(7)
    people = [f"person-{number}" for number in range(30)]
    batches = [
        [event(draw.choice(people), HOUR * draw.randrange(1_000), {draw.choice(ANSWERABLE): draw.random() < 0.5}) for _ in range(100)]
        for _ in range(40)
    ]
    await asyncio.gather(*(evaluate(stubs[number % 2], *batch) for number, batch in enumerate(batches)))
    await asyncio.gather(*(evaluate(stubs[number % 2], *batch) for number, batch in enumerate(batches, 1)))
    carried = [one for batch in batches for one in batch]
    lines = {person: await ledger(stubs[0], person) for person in people}
    for person in people:
        (answer,) = await evaluate(stubs[1], event(person))
        for name in ANSWERABLE:
            own = [one for one in carried if one.user_id == person and one.preferences[0].category == name]
            last = max(one.event_time.seconds for one in own)
            expected = all(one.preferences[0].granted for one in own if one.event_time.seconds == last)
            assert (name in answer.granted_purposes) == expected
    total = sum(map(len, lines.values()))
    published = decisions_in(await eventually(lambda: announced(bus, 1, decisions=total)))
    assert Counter(one.decision_id for one in published) == Counter(one.decision_id for own in lines.values() for one in own)


async def test_the_same_news_on_two_replicas_is_one_line(replicas: Any, client: Client) -> None:
    stubs = list(map(client, (replicas.one, replicas.two)))
    await apply(stubs[0])
    await eventually(lambda: knows_purposes(stubs[1]))
    for number in range(10):
        person = f"person-{number}"
        await asyncio.gather(*(evaluate(stubs[n % 2], event(person, n, {"advertising": True})) for n in range(6)))
        lines = await ledger(stubs[0], person)
        # A later answer with the same content is no news; an earlier one that came second is none either.
        assert len(lines) == 1


async def test_the_outbox_delivers_each_decision_once_and_in_order_across_kill_9(
    start_service: StartService, client: Client, fresh_nats: NatsServer
) -> None:
    consent = start_service("consent")
    await apply(client(consent))
    answered: list[str] = []
    for round_ in range(2):
        writing = asyncio.create_task(keep_recording(client(consent), round_, answered))
        await eventually(lambda goal=40 * (round_ + 1): len(answered) >= goal)
        consent.kill()
        await writing
        consent.start()
    lines = [line.decision_id for line in reversed(await ledger(client(consent)))]
    assert set(answered) <= set(lines)
    async with connect(fresh_nats.url, "test") as bus:
        published = decisions_in(await eventually(lambda: announced(bus, 1, decisions=len(lines))))
    assert [one.decision_id for one in published] == lines


async def test_postgres_away_is_unavailable_and_passes(start_service: StartService, client: Client, tmp_path: Path) -> None:
    with PostgresServer(tmp_path, durable=False) as own:
        consent = start_service("consent", {"CDI_DATABASE_URL": own.create_database("consent")}, migrate=True)
        stub = client(consent)
        await apply(stub)
        await record(stub, decision(True))
        own.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await evaluate(stub, event())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await eventually(lambda: ready(consent) == 503)
        own.start()
        await eventually(lambda: answers(stub, {"advertising", "analytics"}))
        await eventually(lambda: ready(consent) == 200)
        assert len(await record(stub, decision(False, 1))) == 1


async def test_nats_away_holds_up_nobody(start_service: StartService, client: Client, fresh_nats: NatsServer) -> None:
    consent = start_service("consent")
    stub = client(consent)
    await apply(stub)
    fresh_nats.stop()
    await record(stub, decision(True))
    assert granted(await evaluate(stub, event())) == [{"advertising", "analytics"}]
    fresh_nats.start()
    async with connect(fresh_nats.url, "test") as bus:
        assert len(decisions_in(await eventually(lambda: announced(bus, 1)))) == 1


async def test_a_sampled_event_has_a_span_below_its_caller(replicas: Any, client: Client) -> None:
    traceparent = f"00-{uuid.uuid4().hex}-b7ad6b7169203331"
    sampled = event(traceparent=f"{traceparent}-01")
    await evaluate(client(replicas.one), event(), sampled, event(traceparent=f"{traceparent}-00"))
    (span,) = await eventually(lambda: replicas.spans.store.of_message(sampled.message_id))
    assert (span.service, span.name, span.trace_id, span.parent_span_id) == ("consent", "EvaluateConsent", *traceparent.split("-")[1:])
    assert len(replicas.spans.store.of_trace(span.trace_id)) == 1


# What the tests above ask


async def announced(bus: Bus, messages: int, decisions: int = 0) -> list[Message[bytes]]:
    """All messages on CONSENT once there are so many of them and of decisions in them; before that nothing."""
    found: list[Message[bytes]] = []
    with contextlib.suppress(NotFound):
        while True:
            found.append(await bus.message(StreamName.CONSENT, len(found) + 1))
    found = [message for message in found if message.subject == topology.consent(Scene.workspace)]
    return found if len(found) >= messages and len(decisions_in(found)) >= decisions else []


def decisions_in(messages: Iterable[Message[bytes]]) -> list[Decision]:
    return [one for message in messages for one in DecisionsRecorded.FromString(message.payload).decisions]


async def knows_purposes(stub: ConsentServiceStub) -> bool:
    return granted(await evaluate(stub, event("nobody"))) == [{"analytics"}]


async def keep_recording(stub: ConsentServiceStub, round_: int, answered: list[str]) -> None:
    """Records one decision after the other until the service is gone."""
    number = 0
    with contextlib.suppress(grpc.aio.AioRpcError):
        while True:
            (result,) = await record(stub, decision(number % 2 == 0, round_ * 100_000 + number))
            answered.append(result.decision_id)
            number += 1


async def answers(stub: ConsentServiceStub, expected: set[str]) -> bool:
    try:
        return granted(await evaluate(stub, event())) == [expected]
    except grpc.aio.AioRpcError:
        return False


def ready(process: ServiceProcess) -> int:
    """The status of /readyz."""
    connection = http.client.HTTPConnection(process.ops, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()
