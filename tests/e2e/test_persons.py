"""One person on two devices, made one by an event and parted by an operator.

The graph, the warehouse's views and the events of a profile say the same, and no row that was loaded is ever written again.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from cdi.identity.v1 import identity_service_pb2, profiles_service_pb2, rules_pb2
from cdi.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cdi.identity.v1.profile_pb2 import Identifier, Profile
from cdi_cli.peers import Peers, ask
from cdi_cli.suite import Suite
from cdi_runtime.rpc import channel
from cdi_testing import eventually
from tests.e2e.steps import WORKSPACE, WRITE_KEY, count, rows

Event = dict[str, object]

TABLES = ("tracks", "pages", "identifies")
LOADED = " union all ".join(
    f"select id, profile_id, demoted_identifiers, loaded_at::varchar from {table} where id like '{{0}}%'" for table in TABLES
)


class Visits:
    """What a person does on a phone and on a laptop, and what the suite makes of it.

    Args:
        suite: the running suite.
        peers: its services.
        prefix: of this test's ids.
    """

    def __init__(self, suite: Suite, peers: Peers, prefix: str) -> None:
        self.suite = suite
        self.peers = peers
        self.prefix = prefix
        self.phone, self.laptop, self.user = f"{prefix}phone", f"{prefix}laptop", f"{prefix}ada"
        self._began = datetime.now(UTC) - timedelta(minutes=5)
        self._sent = 0

    def event(self, kind: str, device: str, *, known: bool = False, **fields: object) -> Event:
        """The next event; its id ends with its number, its time is a second after the one before."""
        self._sent += 1
        time = (self._began + timedelta(seconds=self._sent)).isoformat()
        who = {"anonymousId": device} | ({"userId": self.user} if known else {})
        return {"type": kind, "messageId": f"{self.prefix}{self._sent}", "timestamp": time, **who, **fields}

    async def send(self, *events: Event) -> None:
        """Sends events over HTTP and waits until each has its row."""
        key = {"Authorization": aiohttp.encode_basic_auth(WRITE_KEY, "")}
        sent_time = datetime.now(UTC).isoformat()
        async with (
            aiohttp.ClientSession(headers=key) as session,
            session.post(f"{self.suite.http_url}/v1/batch", json={"batch": events, "sentAt": sent_time}) as answer,
        ):
            assert answer.status == 200

        async def complete() -> bool:
            return sum([(await count(self.peers, table, self.prefix))[0] for table in TABLES]) == self._sent

        await eventually(complete)

    async def loaded(self) -> dict[int, list[object]]:
        """By event: the profile id, what was left out, and the time of loading, as they stand in the row."""
        found = await rows(self.peers, LOADED.format(self.prefix))
        by_event = {self._number(row[0]): row[1:] for row in found}
        assert len(by_event) == len(found), "a row is there twice"
        return by_event

    async def persons(self) -> dict[int, object]:
        """By event: whose it is, as the warehouse's views say."""
        of = f"where id like '{self.prefix}%'"
        everything = await rows(self.peers, f"select id, canonical_profile_id from events_by_person {of}")
        tracks = await rows(self.peers, f"select id, canonical_profile_id from by_person(tracks) {of}")
        by_event = {self._number(message_id): owner for message_id, owner in everything}
        assert by_event.items() >= {self._number(message_id): owner for message_id, owner in tracks}.items()
        return by_event

    async def follow(self, expected: Mapping[int, str], owners: Mapping[str, str]) -> None:
        """Waits until the views say this of the events and of the identifiers; then identity says the same of the events."""

        async def so() -> bool:
            sql = f"select external_id_value, canonical_profile_id from user_identifiers where external_id_value like '{self.prefix}%'"
            assert await self.persons() == expected
            assert dict(await rows(self.peers, sql)) == owners
            return True

        await eventually(so)
        for profile_id in dict.fromkeys(expected.values()):
            newest_first = [number for number in sorted(expected, reverse=True) if expected[number] == profile_id]
            assert await self.events_of(profile_id) == newest_first

    async def events_of(self, profile_id: str) -> list[int]:
        """The events of a profile, as identity tells them."""
        request = profiles_service_pb2.ListProfileEventsRequest(workspace_id=WORKSPACE)
        request.key.profile_id = profile_id
        answer = await ask((await self.peers.profiles()).ListProfileEvents, request)
        assert not answer.next_page_token
        return [self._number(event.message_id) for event in answer.events]

    def named(self, profile: Profile) -> set[str]:
        """The identifiers of a profile without the prefix."""
        return {item.value.removeprefix(self.prefix) for item in profile.identifiers}

    def _number(self, message_id: object) -> int:
        return int(str(message_id).removeprefix(self.prefix))


@pytest.fixture
def visits(suite: Suite, shop: Peers, prefix: str) -> Visits:
    return Visits(suite, shop, prefix)


async def test_a_merge_and_its_undoing_reach_all_history_and_rewrite_no_row(visits: Visits) -> None:
    phone, laptop, user = visits.phone, visits.laptop, visits.user
    await visits.send(visits.event("page", phone, name="Home"), visits.event("track", phone, event="Looked"))
    await visits.send(visits.event("identify", laptop, known=True), visits.event("track", laptop, known=True, event="Bought"))
    before = await visits.loaded()
    first, second = (str(before[number][0]) for number in (1, 3))
    assert {number: row[0] for number, row in before.items()} == {1: first, 2: first, 3: second, 4: second}
    await visits.follow({1: first, 2: first, 3: second, 4: second}, {phone: first, laptop: second, user: second})

    await visits.send(visits.event("identify", phone, known=True))
    await visits.follow(dict.fromkeys(range(1, 6), first), dict.fromkeys((phone, laptop, user), first))
    merged = await visits.loaded()
    assert merged == before | {5: merged[5]}, "a merge rewrites no row"
    async with channel(visits.suite.grpc("identity")) as to_identity:
        identity = IdentityServiceStub(to_identity)
        assert visits.named(await profile(identity, second)) == {"phone", "laptop", "ada"}
        assert await kinds(identity, first) == ["MERGED", "CREATED", "CREATED"]

        undo = identity_service_pb2.SplitProfileRequest(
            workspace_id=WORKSPACE, profile_id=first, merged_profile_id=second, request_id=f"{visits.prefix}undo"
        )
        parted = await ask(identity.SplitProfile, undo)
        assert (parted.remaining.profile_id, parted.separated.profile_id) == (first, second)
        assert (visits.named(parted.remaining), visits.named(parted.separated)) == ({"phone"}, {"laptop", "ada"})
        # The fifth event names both; the user is stronger than the device.
        now = {1: first, 2: first, 3: second, 4: second, 5: second}
        owners = {phone: first, laptop: second, user: second}
        await visits.follow(now, owners)
        assert await visits.loaded() == merged, "a split rewrites no row"

        await visits.send(
            visits.event("track", phone, event="Looked"),
            visits.event("track", laptop, known=True, event="Bought"),
            visits.event("track", phone, known=True, event="Bought"),
        )
        await visits.follow(now | {6: first, 7: second, 8: second}, owners)
        after = await visits.loaded()
        assert after == merged | {number: after[number] for number in (6, 7, 8)}
        assert [after[number][0] for number in (6, 7, 8)] == [first, second, second]
        assert [json.loads(str(after[number][1] or "[]")) for number in (6, 7, 8)] == [[], [], ["anonymous_id"]]
        assert visits.named(await profile(identity, f"anonymous_id:{phone}")) == {"phone"}
        assert visits.named(await profile(identity, f"user_id:{user}")) == {"laptop", "ada"}
        assert await kinds(identity, first) == ["SPLIT", "MERGED", "CREATED"]
        assert await kinds(identity, second) == ["MATCHED", "SPLIT", "MERGED", "CREATED"]


async def profile(identity: IdentityServiceStub, key: str) -> Profile:
    """The profile of an id, or of an identifier such as ``user_id:ada``."""
    request = identity_service_pb2.GetProfileRequest(workspace_id=WORKSPACE)
    kind, _, value = key.partition(":")
    if value:
        request.identifier.CopyFrom(Identifier(type=kind, value=value))
    else:
        request.profile_id = key
    found: Profile = (await ask(identity.GetProfile, request)).profile
    return found


async def kinds(identity: IdentityServiceStub, profile_id: str) -> list[str]:
    """What was decided about a profile, newest first."""
    request = identity_service_pb2.ExplainProfileRequest(workspace_id=WORKSPACE, profile_id=profile_id)
    decisions = (await ask(identity.ExplainProfile, request)).decisions
    return [rules_pb2.DecisionKind.Name(decision.kind).removeprefix("DECISION_KIND_") for decision in decisions]
