"""What a replica remembers of known people: right as of the snapshot that confirms it, whatever came in between."""

from collections.abc import Mapping

import pytest

from cdi_identity import remembering
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import Lookup, Merges, Standing
from cdi_identity.remembering import KnownPeople, Recalled

A, B, C, X, Y = (f"0190a1b2-c3d4-7e5f-8a6b-{number:012d}" for number in range(5))
ANN: tuple[Identifier, ...] = (("w", "user_id", "ann"), ("w", "anonymous_id", "1"))


def snapshot(last: int = 0, successors: Mapping[str, str] | None = {}, splits: int = 0, server: str = "monday") -> Lookup:
    """What a statement says of the workspace."""
    return Lookup({}, {"w": Standing(0, splits)}, {"w": Merges(last, successors)}, server)


def recall(people: KnownPeople) -> Recalled:
    """Asks for Ann."""
    return people.recall(["w"], {0: ANN})


def knowing_ann(last: int = 0) -> KnownPeople:
    """Somebody who has seen Ann once."""
    people, seen = KnownPeople(), snapshot(last)
    people.hear(recall(people), seen)
    learn(people, A, seen)
    return people


def learn(people: KnownPeople, owner: str, seen: Lookup, identifiers: tuple[Identifier, ...] = ANN) -> None:
    """Sees somebody, Ann if nobody else is named, who was not remembered."""
    people.learn(people.recall(["w"], {0: identifiers}), [(0, owner)], seen)


def test_who_was_seen_is_remembered_as_of_the_last_merge_heard_of() -> None:
    recalled = recall(knowing_ann(last=3))
    assert (recalled.owners, recalled.since) == ({0: A}, {"w": 3})
    assert recalled.confirmed(snapshot(3)) == {0: A}


def test_merges_rename_at_once_and_afterwards_also_over_several() -> None:
    people = knowing_ann()
    recalled, merged = recall(people), snapshot(2, {A: B, B: C})
    assert recalled.confirmed(merged) == {0: C}
    people.hear(recalled, merged)
    assert recall(people).owners == {0: C}
    assert recall(people).since == {"w": 2}


def test_a_separation_ends_what_is_remembered() -> None:
    people = knowing_ann()
    recalled, split = recall(people), snapshot(splits=1)
    assert recalled.confirmed(split) is None
    people.hear(recalled, split)
    assert recall(people).owners == {}


def test_another_run_of_the_server_ends_what_is_remembered() -> None:
    people = knowing_ann(last=3)
    recalled, restored = recall(people), snapshot(3, server="tuesday")
    assert recalled.confirmed(restored) is None
    people.hear(recalled, restored)
    assert recall(people).owners == {}
    learn(people, B, restored)
    assert recall(people).confirmed(restored) == {0: B}


def test_too_many_merges_end_what_is_remembered() -> None:
    people = knowing_ann()
    recalled, many = recall(people), snapshot(5_000, None)
    assert recalled.confirmed(many) is None
    people.hear(recalled, many)
    assert recall(people).owners == {}


def test_snapshots_that_come_late_take_nothing_back() -> None:
    people = knowing_ann()
    early, late = recall(people), recall(people)
    people.hear(late, snapshot(2, {A: B}))
    old = snapshot(1, {X: Y})
    people.hear(early, old)
    assert early.confirmed(old) == {0: A}, "as of its own snapshot"
    learn(people, A, old)
    assert recall(people).owners == {0: B}
    people.hear(recall(people), snapshot(2, splits=1))
    learn(people, A, old)
    assert recall(people).owners == {}


def test_what_is_from_before_the_first_merge_heard_of_is_not_learnt() -> None:
    people = KnownPeople()
    first = recall(people)
    people.hear(first, snapshot(7))
    learn(people, A, snapshot(6))
    assert recall(people).owners == {}


def test_merges_that_one_snapshot_does_not_tell_are_asked_for_again() -> None:
    people = KnownPeople()
    one, other = recall(people), recall(people)
    people.hear(one, snapshot(1))
    learn(people, A, snapshot(1))
    people.hear(other, snapshot(2))
    assert recall(people).since == {"w": 1}, "the second one had not asked for merges"


def test_memory_is_bounded_and_keeps_what_is_asked_for() -> None:
    people, seen = KnownPeople(1_000), snapshot()
    people.hear(recall(people), seen)
    learn(people, A, seen)
    others: dict[int, tuple[Identifier, ...]] = {number: (("w", "user_id", str(number)),) for number in range(10_000)}
    for number, identifiers in others.items():
        learn(people, X, seen, identifiers)
        assert number % 100 or recall(people).owners == {0: A}
    known = people.recall(["w"], others).owners
    assert 900 < len(known) <= 1_000
    assert sum(number >= 9_000 for number in known) > 800, "the last ones"


def test_very_long_identifiers_are_remembered_as_well() -> None:
    people = knowing_ann()
    long = tuple(("w", "phone", f"{number:0500d}") for number in range(100))
    learn(people, B, snapshot(), long)
    assert people.recall(["w"], {0: long, 1: long[:99], 2: ANN}).owners == {0: B, 2: A}


def test_workspaces_are_bounded() -> None:
    people = knowing_ann()
    for number in range(remembering.MAX_WORKSPACES):
        name = f"w{number}"
        people.hear(people.recall([name], {}), Lookup({}, {name: Standing()}, {name: Merges(0, {})}, "monday"))
    learn(people, A, snapshot())
    assert recall(people) == Recalled({}, {}, {}, "monday")


def test_successors_are_bounded_and_the_workspace_with_most_begins_anew() -> None:
    people = knowing_ann()
    others: tuple[Identifier, ...] = (("v", "user_id", "bob"),)
    quiet = Lookup({}, {"v": Standing()}, {"v": Merges(0, {})}, "monday")
    people.hear(people.recall(["v"], {}), quiet)
    people.learn(people.recall(["v"], {0: others}), [(0, B)], quiet)
    for number in range(1, remembering.MAX_RENAMED // 1_000 + 1):
        renamed = {f"{number}-{merged}": C for merged in range(1_000)}
        people.hear(recall(people), snapshot(number, renamed))
        assert recall(people).owners == {0: A}
    people.hear(recall(people), snapshot(number + 1, {A: C}))
    assert recall(people).owners == {}
    assert people.recall(["v"], {0: others}).owners == {0: B}
    learn(people, C, snapshot(number + 1))
    assert recall(people).owners == {0: C}
    learn(people, A, snapshot(number))
    assert recall(people).owners == {0: C}


def test_workspaces_never_answer_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_NUMBERS", iter((1, 12)))
    people = KnownPeople()
    for name in ("2w", "w"):
        people.hear(people.recall([name], {}), Lookup({}, {name: Standing()}, {name: Merges(0, {})}, "monday"))
    longer: tuple[Identifier, ...] = (("2w", "user_id", "ann"),)
    people.learn(people.recall(["2w"], {0: longer}), [(0, A)], Lookup({}, {"2w": Standing()}, {"2w": Merges(0, {})}, "monday"))
    assert people.recall(["2w", "w"], {0: longer, 1: (("w", "user_id", "ann"),)}).owners == {0: A}
