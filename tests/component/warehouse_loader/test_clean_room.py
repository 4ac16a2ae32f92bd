"""Clean rooms through the service, on a real DuckDB: bounds, groups, budgets, repeats, kill -9, attacks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any

import grpc
import pytest

from cdi.error.v1 import error_pb2
from cdi.event.v1.event_pb2 import Event
from cdi.warehouse.v1 import clean_room_pb2 as doc
from cdi.warehouse.v1 import clean_room_service_pb2 as pb
from cdi.warehouse.v1 import clean_room_service_pb2_grpc as pb_grpc
from cdi.warehouse.v1.warehouse_service_pb2 import QueryRowsRequest
from cdi.warehouse.v1.warehouse_service_pb2_grpc import WarehouseServiceStub
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, PermissionDenied, RateLimited, Unauthenticated
from cdi_runtime import rpc
from cdi_testing import builders, eventually

from .conftest import ADMIN_TOKEN, graph_changed

PARTNER, OTHER = "partner-token", "other-token"
MINIMUM = 10
COUNTRIES = ("DE", "FR", "IT")
PURPOSE = "measurement"


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def partner(name: str, token: str, epsilon: float) -> doc.Partner:
    return doc.Partner(name=name, token_hashes=[digest(token)], epsilon=epsilon)


def room(**fields: Any) -> doc.CleanRoom:
    """A clean room over the table ``bought``; large epsilons make the noise small where a test asks for exact numbers."""
    table = doc.CleanRoomTable(
        name="bought",
        keys=[doc.KeyColumn(column="country", values=COUNTRIES), doc.KeyColumn(column="vip", values=["true", "false"])],
        numbers=[doc.NumberColumn(column="total", lower=0, upper=100, step=1)],
        filters=["shop", "timestamp"],
        max_rows_per_person=2,
    )
    values: dict[str, Any] = {
        "workspace_id": builders.WORKSPACE,
        "name": "retail",
        "purposes": [PURPOSE],
        "tables": [table],
        "minimum_group_size": MINIMUM,
        "partners": [partner("acme-ads", PARTNER, 50.0), partner("other", OTHER, 1.0)],
    }
    return doc.CleanRoom(**(values | fields))


def bought(user: str, purposes: Sequence[str] = (PURPOSE,), **properties: Any) -> Event:
    event = builders.track("Bought", user_id=user, properties={"country": "DE", "total": 10, "shop": "web", "vip": False} | properties)
    event.consent.granted_purposes.extend(purposes)
    return event


COUNT = pb.Aggregate(function=pb.FUNCTION_COUNT)
PEOPLE = pb.Aggregate(function=pb.FUNCTION_PEOPLE)
SUM = pb.Aggregate(function=pb.FUNCTION_SUM, column="total")
AVERAGE = pb.Aggregate(function=pb.FUNCTION_AVERAGE, column="total")


def texts(column: str, *values: str) -> doc.Condition:
    return doc.Condition(column=column, texts=doc.Texts(values=values))


class Stubs:
    """The service as an administrator and two partners see it."""

    def __init__(self, admin: Any, partner: Any, other: Any, stranger: Any) -> None:
        self.admin, self.partner, self.other, self.stranger = admin, partner, other, stranger

    async def apply(self, document: doc.CleanRoom) -> pb.ApplyCleanRoomResponse:
        return await rpc.call(self.admin.ApplyCleanRoom, pb.ApplyCleanRoomRequest(clean_room=document), timeout=20.0)

    async def ask(self, *aggregates: pb.Aggregate, by: Any = None, epsilon: float = 8.0, **fields: Any) -> pb.QueryAggregatesResponse:
        request = pb.QueryAggregatesRequest(
            workspace_id=builders.WORKSPACE,
            clean_room="retail",
            table=fields.pop("table", "bought"),
            aggregates=aggregates or [PEOPLE],
            epsilon=epsilon,
            **fields,
        )
        return await rpc.call((by or self.partner).QueryAggregates, request, timeout=30.0)

    async def budget(self, by: Any = None, name: str = "") -> pb.GetBudgetResponse:
        request = pb.GetBudgetRequest(workspace_id=builders.WORKSPACE, clean_room="retail", partner=name)
        return await rpc.call((by or self.partner).GetBudget, request, timeout=20.0)

    async def log(self, by: Any = None, **fields: Any) -> pb.ListQueriesResponse:
        request = pb.ListQueriesRequest(workspace_id=builders.WORKSPACE, clean_room="retail", **fields)
        return await rpc.call((by or self.partner).ListQueries, request, timeout=20.0)


@pytest.fixture
def launch(start_loader: Any) -> Any:
    return start_loader


@pytest.fixture
async def stubs() -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def connect(process: ServiceProcess) -> Stubs:
            channels = [
                await stack.enter_async_context(rpc.channel(process.grpc, token=token)) for token in (ADMIN_TOKEN, PARTNER, OTHER, "no")
            ]
            return Stubs(*map(pb_grpc.CleanRoomServiceStub, channels))

        yield connect


@pytest.fixture
async def shop(launch: Any, stubs: Any, ask: Any, enrichment: Any) -> Any:
    """A loader with a clean room, and a function that loads purchases."""

    class Shop:
        def __init__(self) -> None:
            self.loaded = 0

        async def begin(self) -> None:
            self.loader = launch()
            self.client = await ask(self.loader)
            self.rooms = await stubs(self.loader)
            await self.rooms.apply(room())

        async def load(self, events: Sequence[Event]) -> None:
            for start in range(0, len(events), 500):
                await enrichment.publish(events[start : start + 500])
            self.loaded += len(events)
            await self.client.loaded(self.loaded)

        async def restart(self) -> None:
            """Kill -9, and start anew."""
            self.loader.kill()
            self.loader.start()
            self.client = await ask(self.loader)
            self.rooms = await stubs(self.loader)

    made = Shop()
    await made.begin()
    return made


def close(value: Any, expected: float, scale: float) -> bool:
    """Whether a noised value is within what noise of this scale exceeds with a chance below 1e-11."""
    return bool(abs(value.value - expected) <= 26 * scale + 1)


async def test_groups_are_counted_summed_and_averaged_with_consent_only(shop: Any) -> None:
    people = [bought(f"de-{n}", total=10) for n in range(200)] + [bought(f"fr-{n}", country="FR", total=30) for n in range(300)]
    without = [bought(f"no-{n}", purposes=["advertising"]) for n in range(500)] + [bought(f"none-{n}", purposes=()) for n in range(500)]
    await shop.load(people + without)
    answer = await shop.rooms.ask(PEOPLE, COUNT, SUM, AVERAGE, group_by=["country"])
    assert [list(group.keys) for group in answer.groups] == [["DE"], ["FR"]]
    assert answer.suppressed_groups == 1
    assert (answer.epsilon_spent, answer.epsilon_left) == (8.0, 42.0)
    share = 8.0 / 4
    for group, count, total in zip(answer.groups, (200, 300), (2_000, 9_000), strict=True):
        counted, rows, summed, average = group.values
        assert close(counted, count, 1 / share)
        assert close(rows, count, 2 / share)
        assert close(summed, total, 200 / share)
        assert 0 <= average.value <= 100
        assert 0 < counted.accuracy < rows.accuracy < summed.accuracy
    (entry,) = (await shop.rooms.log()).queries
    assert (entry.partner, entry.epsilon, entry.groups, entry.outcome) == ("acme-ads", 8.0, 2, pb.QUERY_OUTCOME_ANSWERED)
    assert '"groupBy":["country"]' in entry.query


async def test_one_person_changes_little_whatever_it_sends(shop: Any) -> None:
    await shop.load([bought(f"u{n}", total=0) for n in range(100)])
    whale = [bought("whale", total=total, country=country) for total in (10**15, -(10**15), 7) for country in COUNTRIES for _ in range(60)]
    await shop.load(whale)
    answer = await shop.rooms.ask(PEOPLE, COUNT, SUM, group_by=["country"], epsilon=9.0)
    assert [list(group.keys) for group in answer.groups] == [["DE"]]
    people, rows, total = answer.groups[0].values
    assert 100 - 10 <= people.value <= 101 + 10
    assert 100 - 19 <= rows.value <= 102 + 19
    assert -26 * 200 / 3 <= total.value <= 200 + 26 * 200 / 3


async def test_groups_of_fewer_people_never_appear(shop: Any) -> None:
    await shop.load([bought(f"de-{n}") for n in range(150)] + [bought(f"fr-{n}", country="FR") for n in range(MINIMUM - 1)])
    await shop.load([bought("many-rows", country="IT", vip=True) for _ in range(300)])
    for number in range(40):
        anything = texts("country", *COUNTRIES, f"spelled-{number}")
        answer = await shop.rooms.ask(PEOPLE, group_by=["country"], epsilon=0.5 + number / 1_000)
        assert [list(group.keys) for group in answer.groups] == [["DE"]]
        if number < 3:
            with pytest.raises(FailedPrecondition):  # the condition leaves nobody out
                await shop.rooms.ask(PEOPLE, group_by=["country"], conditions=[anything], epsilon=0.5)


async def test_the_budget_ends_also_across_kill_9_and_the_same_query_is_free(shop: Any) -> None:
    await shop.load([bought(f"de-{n}") for n in range(200)] + [bought(f"it-{n}", country="IT") for n in range(200)])
    other = shop.rooms.other
    condition = texts("country", "IT", "FR")
    first = await shop.rooms.ask(PEOPLE, SUM, by=other, epsilon=0.75, conditions=[condition])
    assert (first.epsilon_spent, first.epsilon_left) == (0.75, 0.25)
    with pytest.raises(RateLimited) as refused:
        await shop.rooms.ask(COUNT, by=other, epsilon=0.5)
    assert refused.value.reason == error_pb2.ERROR_REASON_PRIVACY_BUDGET_SPENT
    assert refused.value.metadata["epsilon_left"] == "0.25"
    assert 0 < (refused.value.retry_after or 0) <= 30 * 86_400
    await shop.restart()
    budget = await shop.rooms.budget(other)
    assert (budget.partner, budget.epsilon, budget.spent) == ("other", 1.0, 0.75)
    assert budget.period_end_time.seconds - budget.period_start_time.seconds == 30 * 86_400
    with pytest.raises(RateLimited):
        await shop.rooms.ask(COUNT, by=other, epsilon=0.5)
    await shop.load([bought(f"late-{n}", country="IT") for n in range(500)])
    for again in (condition, texts("country", "FR", "IT", "IT")):
        repeated = await shop.rooms.ask(PEOPLE, SUM, by=other, epsilon=0.75, conditions=[again])
        assert (repeated.epsilon_spent, repeated.epsilon_left) == (0.0, 0.25)
        assert (repeated.groups, repeated.answer_time, repeated.query_id) == (first.groups, first.answer_time, first.query_id)
    (entry,) = (await shop.rooms.log(other)).queries
    assert (entry.epsilon, entry.repeats) == (0.75, 2)
    await shop.rooms.ask(COUNT, by=other, epsilon=0.25)
    assert (await shop.rooms.budget(other)).spent == 1.0
    with pytest.raises(RateLimited):
        await shop.rooms.ask(COUNT, by=other, epsilon=0.001)
    assert (await shop.rooms.budget()).spent == 0.0


async def test_killed_between_paying_and_answering_it_stays_paid_once(shop: Any) -> None:
    await shop.load([bought(f"de-{n}") for n in range(200)])
    slow = asyncio.create_task(shop.client.query("select count(*) from range(10000000) a, range(10000000) b"))
    asked = asyncio.create_task(shop.rooms.ask(PEOPLE))  # waits behind the slow query, in the thread that reads

    async def paid() -> bool:
        return bool((await shop.rooms.budget()).spent == 8.0)

    await eventually(paid)
    assert not asked.done()
    await shop.restart()
    for lost in (slow, asked):
        with pytest.raises(Fault):
            await lost
    (entry,) = (await shop.rooms.log()).queries
    assert (entry.outcome, entry.epsilon) == (pb.QUERY_OUTCOME_PAID, 8.0)
    answers = await asyncio.gather(*(shop.rooms.ask(PEOPLE) for _ in range(5)))
    assert {answer.epsilon_spent for answer in answers} == {0.0}
    assert len({answer.groups[0].values[0].value for answer in answers}) == 1
    assert (await shop.rooms.budget()).spent == 8.0


async def test_the_same_query_at_the_same_time_is_paid_once(shop: Any) -> None:
    await shop.load([bought(f"de-{n}") for n in range(200)])
    answers = await asyncio.gather(*(shop.rooms.ask(PEOPLE, SUM, epsilon=0.5) for _ in range(8)))
    assert sum(answer.epsilon_spent for answer in answers) == 0.5
    assert len({tuple(value.value for value in answer.groups[0].values) for answer in answers}) == 1
    again = await asyncio.gather(*(shop.rooms.ask(PEOPLE, SUM, epsilon=0.5 + n / 1_000) for n in range(1, 9)))
    assert len({answer.groups[0].values[1].value for answer in again}) > 1


async def test_differencing_attacks_fail(shop: Any) -> None:
    """Somebody knows that ada alone bought at the kiosk, and wants to know whether she is a VIP."""
    await shop.load([bought(f"u{n}", vip=bool(n % 2)) for n in range(700)] + [bought("ada", vip=True, shop="kiosk")])
    ask = shop.rooms.ask
    alone = await ask(PEOPLE, group_by=["vip"], conditions=[texts("shop", "kiosk")], epsilon=0.1)
    assert (list(alone.groups), alone.suppressed_groups) == ([], 2)
    for padding in ("", "x", "y"):
        with pytest.raises(FailedPrecondition) as refused:
            await ask(PEOPLE, group_by=["vip"], conditions=[texts("shop", "web", padding)], epsilon=0.1)
        assert refused.value.reason == error_pb2.ERROR_REASON_GROUP_TOO_SMALL
    with pytest.raises(FailedPrecondition):  # refused again for nothing, not answered at the second try
        await ask(PEOPLE, group_by=["vip"], conditions=[texts("shop", "web", "x")], epsilon=0.1)
    entries = (await shop.rooms.log()).queries
    assert [entry.outcome for entry in entries] == [pb.QUERY_OUTCOME_REFUSED] * 3 + [pb.QUERY_OUTCOME_ANSWERED]
    assert (await shop.rooms.budget()).spent == pytest.approx(0.4)
    # Asking in other words costs each time, until nothing is left.
    answers = 0
    for number in range(20):
        try:
            await ask(PEOPLE, by=shop.rooms.other, group_by=["vip"], epsilon=0.1 + number / 1_000)
        except RateLimited:
            break
        answers += 1
    assert answers == 9


INJECTIONS = ("'", '"', "'; drop table bought; --", '"; drop table bought; --', "x') or true --", "\\", "\x00", "$1", 'bought"', "é'")


async def test_no_text_of_a_partner_becomes_sql(shop: Any) -> None:
    await shop.load([bought(f"u{n}") for n in range(600)])  # so many that the noise never makes them too few to be left out
    for text in INJECTIONS:
        answer = await shop.rooms.ask(PEOPLE, conditions=[texts("shop", text)], epsilon=0.5)
        assert list(answer.groups) == []
        for wrong in (
            {"table": text},
            {"group_by": [text]},
            {"conditions": [texts(text, "web")]},
            {"conditions": [doc.Condition(column=text, boolean=True)]},
        ):
            with pytest.raises(InvalidArgument):
                await shop.rooms.ask(PEOPLE, **wrong)
        with pytest.raises(InvalidArgument):
            await shop.rooms.ask(pb.Aggregate(function=pb.FUNCTION_SUM, column=text))
        with pytest.raises(InvalidArgument):
            await shop.rooms.log(page_token=text)
        with pytest.raises(PermissionDenied):
            await shop.rooms.log(partner=text)
        assert list((await shop.rooms.log(shop.rooms.admin, partner=text)).queries) == []
        request = pb.QueryAggregatesRequest(workspace_id=text, clean_room=text, table=text)
        with pytest.raises(Unauthenticated):
            await rpc.call(shop.rooms.partner.QueryAggregates, request, timeout=20.0)
        with pytest.raises(InvalidArgument):
            await shop.rooms.apply(room(schema=text))
        with pytest.raises(InvalidArgument):
            await shop.rooms.apply(room(tables=[doc.CleanRoomTable(name=text)]))
        with pytest.raises(InvalidArgument):
            await shop.rooms.apply(room(tables=[doc.CleanRoomTable(name="bought", filters=[text])]))
    keys = doc.CleanRoomTable(name="bought", keys=[doc.KeyColumn(column="country", values=[*INJECTIONS, "DE"])])
    await shop.rooms.apply(room(tables=[keys], purposes=[PURPOSE]))
    answer = await shop.rooms.ask(PEOPLE, group_by=["country"])
    assert [list(group.keys) for group in answer.groups] == [["DE"]]
    assert await shop.client.value("select count(*) from bought") == 600


async def test_everybody_sees_only_what_is_theirs(shop: Any) -> None:
    rooms = shop.rooms
    await shop.load([bought(f"u{n}") for n in range(60)])
    for stranger in (rooms.stranger, rooms.admin):
        with pytest.raises(Unauthenticated):
            await rooms.ask(PEOPLE, by=stranger)
    for stub in (rooms.stranger, rooms.partner):
        with pytest.raises(Unauthenticated):
            await rpc.call(stub.ApplyCleanRoom, pb.ApplyCleanRoomRequest(clean_room=room()), timeout=20.0)
    with pytest.raises(Unauthenticated):
        await rooms.log(rooms.stranger)
    await rooms.ask(PEOPLE, epsilon=0.5)
    await rooms.ask(PEOPLE, by=rooms.other, epsilon=0.5)
    await rooms.ask(COUNT, epsilon=0.5)
    assert [entry.partner for entry in (await rooms.log(rooms.other)).queries] == ["other"]
    for call in (rooms.log, rooms.budget):
        with pytest.raises(PermissionDenied):
            await (call(rooms.other, partner="acme-ads") if call == rooms.log else call(rooms.other, "acme-ads"))
    page = await rooms.log(rooms.admin, page_size=2)
    rest = await rooms.log(rooms.admin, page_size=2, page_token=page.next_page_token)
    assert [entry.partner for entry in [*page.queries, *rest.queries]] == ["acme-ads", "other", "acme-ads"]
    assert rest.next_page_token == ""
    assert (await rooms.budget(rooms.admin, "other")).spent == 0.5
    with pytest.raises(NotFound):
        await rooms.budget(rooms.admin, "nobody")
    with pytest.raises(NotFound):
        await rpc.call(rooms.admin.GetBudget, pb.GetBudgetRequest(workspace_id="x", clean_room="retail"), timeout=20.0)
    assert not (await rooms.apply(room())).changed
    changed = await rooms.apply(room(minimum_group_size=30))
    assert (changed.changed, changed.clean_room.version) == (True, 2)
    assert (await rooms.budget()).spent == 1.0


async def test_a_merge_makes_two_profiles_one_person(shop: Any, graph: Any) -> None:
    def of(profile: str) -> Event:
        event = bought(profile)
        event.identity.profile_id = profile
        return event

    await shop.load([of(f"{side}-{n}") for n in range(100) for side in "ab"])
    before = await shop.rooms.ask(PEOPLE)
    await graph.change(graph_changed(canonicals=[(f"{side}-{n}", f"a-{n}") for n in range(100) for side in "ab"]))
    await shop.client.graph_loaded(1)
    after = await shop.rooms.ask(PEOPLE, epsilon=8.1)
    assert close(before.groups[0].values[0], 200, 1 / 8)
    assert close(after.groups[0].values[0], 100, 1 / 8)


async def test_what_cannot_be_asked_costs_nothing(shop: Any) -> None:
    with pytest.raises(FailedPrecondition) as missing:
        await shop.rooms.ask(PEOPLE)
    assert missing.value.reason == error_pb2.ERROR_REASON_NOT_FOUND
    await shop.load([bought(f"u{n}") for n in range(60)])
    for wrong in (
        {"conditions": [doc.Condition(column="shop", boolean=True)]},
        {"conditions": [doc.Condition(column="timestamp", numbers=doc.NumberRange(below=3))]},
    ):
        with pytest.raises(FailedPrecondition):
            await shop.rooms.ask(PEOPLE, **wrong)
    for condition in (
        doc.Condition(column="shop"),
        doc.Condition(column="total", numbers=doc.NumberRange(below=3)),
        texts("shop"),
        doc.Condition(column="timestamp", times=doc.TimeRange()),
    ):
        with pytest.raises(InvalidArgument):
            await shop.rooms.ask(PEOPLE, conditions=[condition])
    for epsilon in (0.0, -1.0, 10.5, float("nan"), float("inf"), 1e300):
        with pytest.raises(InvalidArgument):
            await shop.rooms.ask(PEOPLE, epsilon=epsilon)
    assert (await shop.rooms.budget()).spent == 0.0
    assert list((await shop.rooms.log()).queries) == []


async def test_at_the_address_of_partners_there_are_clean_rooms_only(start_loader: Any, ask: Any) -> None:
    loader = start_loader(CDI_PARTNER_ADDRESS="127.0.0.1:0")
    await ask(loader)
    async with rpc.channel(loader.addresses["partners"], token=ADMIN_TOKEN) as made:
        await rpc.call(pb_grpc.CleanRoomServiceStub(made).ApplyCleanRoom, pb.ApplyCleanRoomRequest(clean_room=room()), timeout=20.0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await WarehouseServiceStub(made).QueryRows(QueryRowsRequest(sql="select 1"), timeout=20.0)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
