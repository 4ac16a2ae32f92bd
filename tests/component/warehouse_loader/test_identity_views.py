"""The graph's views of every engine that has them, against a plain model of the graph."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pytest

from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_cli.embedded import PostgresServer
from cdi_testing.plugin import new_database_name
from cdi_warehouse_loader.domain.load import Load, TableLoad
from cdi_warehouse_loader.ports import Warehouse
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse

from .conftest import graph_changed
from .engines import Place, duckdb, load_graph, postgresql, rows, snowflake


@pytest.fixture(scope="module", params=["duckdb", "postgresql", "snowflake"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """One warehouse for all examples; each has a workspace of its own."""

    def in_postgres() -> Place:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return postgresql(server, server.create_database(new_database_name()))

    place = {
        "duckdb": lambda: duckdb(tmp_path_factory.mktemp("graph")),
        "postgresql": in_postgres,
        "snowflake": lambda: snowflake(request.getfixturevalue("snowflake_port")),
    }[request.param]()
    warehouse = place.open()
    warehouse.ensure_tables("main")
    yield warehouse
    place.close()


class Row(NamedTuple):
    """An event as it is loaded, and the identifier that decides whose it is."""

    id: str
    profile_id: str
    user_id: str
    anonymous_id: str
    demoted_identifiers: str
    decides: str | None


@dataclass
class Model:
    """A naive graph: who has an identifier and which profile a profile is part of, as plain dictionaries."""

    workspace: str
    canonical: dict[str, str] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    messages: list[GraphChanged] = field(default_factory=list)

    def create(self, identifiers: Sequence[str]) -> None:
        """A new profile with those of the identifiers that nobody has."""
        free = [identifier for identifier in identifiers if identifier not in self.owner]
        profile = self._new()
        self._told([profile], taken=[], given=[(identifier, profile) for identifier in free])

    def give(self, profile: str, identifier: str) -> None:
        """An identifier more for a person, if nobody has it."""
        if identifier not in self.owner:
            self._told([], taken=[], given=[(identifier, self.canonical[profile])])

    def merge(self, one: str, other: str) -> None:
        """Two persons become one; identifiers stay where they were first seen."""
        into, gone = sorted((self.canonical[one], self.canonical[other]))
        parts = [profile for profile, canonical in self.canonical.items() if canonical == gone]
        self.canonical |= dict.fromkeys(parts, into)
        self._told(parts, taken=[], given=[])

    def undo(self, profile: str) -> None:
        """A profile stands alone again, with what was first seen on it."""
        if self.canonical[profile] != profile:
            self.canonical[profile] = profile
            self._told([profile], taken=[], given=[])

    def split(self, identifier: str) -> None:
        """An identifier leaves for a new profile."""
        if identifier in self.owner:
            before = self.canonical[self.owner[identifier]]
            profile = self._new()
            self._told([profile], taken=[(identifier, before)], given=[(identifier, profile)])

    def happen(self, profile: str, user: str, anonymous: str) -> None:
        """An event of a person. Identifiers that nobody has are given to it, those of others are left out, as identity does it."""
        at = self.canonical[profile]
        given = [identifier for identifier in (user, anonymous) if identifier]
        for identifier in given:
            self.give(at, identifier)
        used = [identifier for identifier in given if self.person(identifier) == at]
        demoted = json.dumps([kind_of(identifier) for identifier in given if identifier not in used])
        self.events.append(Row(f"{self.workspace}-{len(self.events)}", at, user, anonymous, demoted, used[0] if used else None))

    def person(self, identifier: str) -> str:
        """Whose it is now."""
        return self.canonical[self.owner[identifier]]

    def expected(self) -> list[list[object]]:
        """Whose every event is now."""
        return sorted(
            [event.id, self.person(event.decides) if event.decides else self.canonical[event.profile_id]] for event in self.events
        )

    def _new(self) -> str:
        profile = f"{self.workspace}-p{len(self.canonical):02}"
        self.canonical[profile] = profile
        return profile

    def _told(self, parts: Sequence[str], *, taken: Sequence[tuple[str, str]], given: Sequence[tuple[str, str]]) -> None:
        self.owner |= dict(given)
        self.messages.append(
            graph_changed(
                canonicals=[(profile, self.canonical[profile]) for profile in parts],
                removed=[(kind_of(identifier), identifier, profile) for identifier, profile in taken],
                created=[(kind_of(identifier), identifier, profile) for identifier, profile in given],
                workspace_id=self.workspace,
            )
        )


def kind_of(identifier: str) -> str:
    return "user_id" if identifier.startswith("u") else "anonymous_id"


USERS, VISITORS = tuple(f"u{n}" for n in range(12)), tuple(f"n{n}" for n in range(12))
STEPS: dict[str, float] = {"create": 3, "give": 1, "merge": 3, "happen": 8}
SEPARATING: Sequence[dict[str, float]] = ({"undo": 1}, {"split": 0.5}, {"undo": 1, "split": 1}, {"undo": 0.2, "split": 0.2})
"""How often; rare ones too, so that one separation does not hide another."""


def live(model: Model, chance: random.Random, weights: dict[str, float]) -> None:
    """Lets things happen to the graph."""
    for step in chance.choices(list(weights), list(weights.values()), k=60):
        one, other = chance.choices(list(model.canonical), k=2)
        user, visitor = chance.choice(USERS), chance.choice(VISITORS)
        match step:
            case "create":
                model.create([user, visitor])
            case "give":
                model.give(one, visitor)
            case "merge":
                model.merge(one, other)
            case "undo":
                model.undo(one)
            case "split":
                model.split(chance.choice((user, visitor)))
            case _:
                model.happen(one, chance.choice((user, "", "")), visitor)


@pytest.mark.parametrize("seed", range(16))
def test_views_are_the_graph_of_a_plain_model(shared: Warehouse, seed: int) -> None:
    model = Model(f"w{seed}")
    model.create(["u1", "n1"])
    model.create(["u2", "n2"])
    live(model, random.Random(seed), {**STEPS, **SEPARATING[seed % len(SEPARATING)]})
    agree(shared, model)


def test_an_identifier_that_leaves_takes_along_what_it_brought_to_every_profile_on_its_way(shared: Warehouse) -> None:
    model = Model("way")
    for identifier in ("u0", "u1", "n2"):
        model.create([identifier])
    first, second, third = model.canonical
    model.happen(third, "", "n2")
    model.merge(second, third)
    model.happen(second, "", "n2")
    model.merge(first, second)
    model.happen(first, "", "n2")
    model.happen(first, "u1", "n2")
    model.split("n2")
    agree(shared, model)


def agree(shared: Warehouse, model: Model) -> None:
    """The views say what the model says."""
    load_graph(shared, *model.messages)
    events = [{"workspace_id": model.workspace, **event._asdict()} for event in model.events]
    columns = ("id", "workspace_id", "profile_id", "user_id", "anonymous_id", "demoted_identifiers")
    loaded = pa.RecordBatch.from_pylist([{name: event[name] for name in columns} for event in events])
    shared.load(Load("ENRICHED", len(events), [TableLoad("main", "tracks", loaded)] if events else [], {}, {}))
    of = f"where workspace_id = '{model.workspace}' order by 1"
    assert rows(shared, f"select id, canonical_profile_id from main.events_by_person {of}") == model.expected()
    if isinstance(shared, DuckDbWarehouse):
        assert rows(shared, f"select id, canonical_profile_id from by_person(tracks) {of}") == model.expected()
    assert rows(shared, f"select profile_id, canonical_profile_id from main.profile_merges {of}") == sorted(
        map(list, model.canonical.items())
    )
    people = sorted([identifier, model.person(identifier)] for identifier in model.owner)
    assert rows(shared, f"select external_id_value, canonical_profile_id from main.user_identifiers {of}") == people
