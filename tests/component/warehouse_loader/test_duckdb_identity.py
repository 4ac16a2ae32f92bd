"""The graph's views on DuckDB itself: against a plain model of it, and a file from before identifiers were loaded."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pytest

from cdi.identity.v1.profile_pb2 import GraphChanged
from cdi_warehouse_loader.domain.graph_rows import Numbered, graph_loads
from cdi_warehouse_loader.domain.load import Load, Position, StreamPartition, TableLoad
from cdi_warehouse_loader.ports import QueryLimits, Question
from cdi_warehouse_loader.warehouses.base import Options
from cdi_warehouse_loader.warehouses.duckdb.warehouse import DuckDbWarehouse, open_warehouse

from .conftest import graph_changed

LIMITS = QueryLimits(1_000, 1_000_000, 10.0)
AT = StreamPartition("IDENTITY", 0)


def load(warehouse: DuckDbWarehouse, *messages: GraphChanged) -> None:
    """Loads messages with the next sequences."""
    first = warehouse.positions.get(AT, Position(0, 0)).sequence + 1
    numbered = [Numbered(first + place, message) for place, message in enumerate(messages)]
    loads = graph_loads("main", numbered, 1, personal=True)
    warehouse.load(Load("IDENTITY", len(messages), loads, {AT: Position(first + len(messages) - 1, 0)}, {}))


def rows(warehouse: DuckDbWarehouse, sql: str) -> list[list[object]]:
    return [list(row) for row in warehouse.query(Question(sql, LIMITS)).values]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> DuckDbWarehouse:
    """One file for all examples; each has a workspace of its own."""
    warehouse = open_warehouse(Options(f"duckdb:{tmp_path_factory.mktemp('graph')}/warehouse.duckdb"))
    warehouse.ensure_tables("main")
    return warehouse


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
def test_views_are_the_graph_of_a_plain_model(shared: DuckDbWarehouse, seed: int) -> None:
    model = Model(f"w{seed}")
    model.create(["u1", "n1"])
    model.create(["u2", "n2"])
    live(model, random.Random(seed), {**STEPS, **SEPARATING[seed % len(SEPARATING)]})
    agree(shared, model)


def test_an_identifier_that_leaves_takes_along_what_it_brought_to_every_profile_on_its_way(shared: DuckDbWarehouse) -> None:
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


def agree(shared: DuckDbWarehouse, model: Model) -> None:
    """The views say what the model says."""
    load(shared, *model.messages)
    events = [{"workspace_id": model.workspace, **event._asdict()} for event in model.events]
    columns = ("id", "workspace_id", "profile_id", "user_id", "anonymous_id", "demoted_identifiers")
    loaded = pa.RecordBatch.from_pylist([{name: event[name] for name in columns} for event in events])
    shared.load(Load("ENRICHED", len(events), [TableLoad("main", "tracks", loaded)] if events else [], {}, {}))
    of = f"where workspace_id = '{model.workspace}' order by 1"
    assert rows(shared, f"select id, canonical_profile_id from events_by_person {of}") == model.expected()
    assert rows(shared, f"select id, canonical_profile_id from by_person(tracks) {of}") == model.expected()
    assert rows(shared, f"select profile_id, canonical_profile_id from profile_merges {of}") == sorted(map(list, model.canonical.items()))
    people = sorted([identifier, model.person(identifier)] for identifier in model.owner)
    assert rows(shared, f"select external_id_value, canonical_profile_id from user_identifiers {of}") == people


def test_a_file_of_the_previous_layout_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute(
            "create table id_graph_updates (workspace_id varchar, profile_id varchar, canonical_profile_id varchar,"
            " triggering_event_type varchar, triggering_event_id varchar, timestamp timestamptz, graph_seq bigint, loaded_at timestamptz)"
        )
        merges = [("a", "b"), ("b", "c"), ("x", "y"), ("c", "d")]
        for number, (merged, into) in enumerate(merges, 1):
            old.execute("insert into id_graph_updates values ('w', ?, ?, null, 'm', now(), ?, now())", [merged, into, number])
        old.execute("create view profiles_canonical as select profile_id, canonical_profile_id from id_graph_updates")
        old.execute("create table events_by_person (id varchar)")
        old.execute("insert into events_by_person values ('of an event with that name')")
        old.execute("create table tracks (id varchar, workspace_id varchar, profile_id varchar, user_id varchar, extra integer)")
        old.execute("insert into tracks values ('1', 'w', 'a', 'ada', 5), ('2', 'w', 'new', null, 6)")
        identifiers = "user_id varchar, anonymous_id varchar, profile_id varchar"
        old.execute(f"create table seen (id varchar, workspace_id varchar, {identifiers}, event_seq bigint)")
        old.execute("insert into seen values ('1', 'w', 'ada', null, 'a', 1)")
        old.execute("create schema _cdi")
        old.execute("create table _cdi.progress (stream varchar, partition integer, sequence bigint, source_sequence bigint)")
        old.execute("insert into _cdi.progress values ('IDENTITY', 0, 4, 0)")
    for _ in range(2):
        warehouse = open_warehouse(Options(f"duckdb:{path}"))
        assert rows(warehouse, "select profile_id, canonical_profile_id from profile_merges order by 1") == [
            ["a", "d"],
            ["b", "d"],
            ["c", "d"],
            ["d", "d"],
            ["x", "y"],
            ["y", "y"],
        ]
        assert rows(warehouse, "select count(*) from id_graph_updates") == [[4 + 6]]
        assert rows(warehouse, "select id, canonical_profile_id from events_by_person order by 1") == [["1", "d"], ["2", "new"]]
        assert rows(warehouse, "select id from event_events_by_person") == [["of an event with that name"]]
        assert warehouse.positions == {AT: Position(4, 0)}
        warehouse.close()

    warehouse = open_warehouse(Options(f"duckdb:{path}"))
    members = [(profile, "e") for profile in ("a", "b", "c", "d")]
    load(warehouse, graph_changed(canonicals=[("e", "e"), *members], workspace_id="w"))
    assert rows(warehouse, "select distinct canonical_profile_id from profile_merges order by 1") == [["e"], ["y"]]
    load(warehouse, graph_changed(removed=[("user_id", "ada", "a")], created=[("user_id", "ada", "f")], workspace_id="w"))
    assert rows(warehouse, "select id, extra, canonical_profile_id from by_person(tracks) order by 1") == [["1", 5, "f"], ["2", 6, "new"]]
    assert rows(warehouse, "select id, demoted_identifiers, canonical_profile_id from by_person(seen)") == [["1", None, "f"]]
    warehouse.close()
