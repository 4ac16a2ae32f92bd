"""Clean rooms through the service, on a real DuckDB: bounds, groups, budgets, repeats, kill -9, attacks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any

import pytest

from cdi.error.v1 import error_pb2
from cdi.event.v1.event_pb2 import Event
from cdi.warehouse.v1 import clean_room_pb2 as doc
from cdi.warehouse.v1 import clean_room_service_pb2 as pb
from cdi.warehouse.v1 import clean_room_service_pb2_grpc as pb_grpc
from cdi_cli.embedded import ServiceProcess
from cdi_kernel.faults import FailedPrecondition, Fault, InvalidArgument, NotFound, PermissionDenied, RateLimited, Unauthenticated
from cdi_runtime import rpc
from cdi_testing import builders

ADMIN, PARTNER, OTHER = "admin-token", "partner-token", "other-token"
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
    return lambda: start_loader(CDI_ADMIN_TOKEN_HASHES=digest(ADMIN))


@pytest.fixture
async def stubs() -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def connect(process: ServiceProcess) -> Stubs:
            channels = [await stack.enter_async_context(rpc.channel(process.grpc, token=token)) for token in (ADMIN, PARTNER, OTHER, "no")]
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
