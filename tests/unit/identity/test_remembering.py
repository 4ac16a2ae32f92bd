"""What a replica remembers of known people: right as of the snapshot that confirms it, whatever came in between."""

from collections.abc import Mapping

import pytest

from cdi_identity import remembering
from cdi_identity.domain.identifiers import Identifier
from cdi_identity.ports import Lookup, Merges, Standing
from cdi_identity.remembering import KnownPeople, Recalled

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
    learn(people, "a", seen)
    return people


def learn(people: KnownPeople, owner: str, seen: Lookup, identifiers: tuple[Identifier, ...] = ANN) -> None:
    """Sees somebody, Ann if nobody else is named, who was not remembered."""
    people.learn(people.recall(["w"], {0: identifiers}), [(0, owner)], seen)


def test_who_was_seen_is_remembered_as_of_the_last_merge_heard_of() -> None:
    recalled = recall(knowing_ann(last=3))
    assert (recalled.owners, recalled.since) == ({0: "a"}, {"w": 3})
    assert recalled.confirmed(snapshot(3)) == {0: "a"}


def test_merges_rename_at_once_and_afterwards_also_over_several() -> None:
    people = knowing_ann()
    recalled, merged = recall(people), snapshot(2, {"a": "b", "b": "c"})
    assert recalled.confirmed(merged) == {0: "c"}
    people.hear(recalled, merged)
    assert recall(people).owners == {0: "c"}
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
    learn(people, "b", restored)
    assert recall(people).confirmed(restored) == {0: "b"}


def test_too_many_merges_end_what_is_remembered() -> None:
    people = knowing_ann()
    recalled, many = recall(people), snapshot(5_000, None)
    assert recalled.confirmed(many) is None
    people.hear(recalled, many)
    assert recall(people).owners == {}


def test_snapshots_that_come_late_take_nothing_back() -> None:
    people = knowing_ann()
    early, late = recall(people), recall(people)
    people.hear(late, snapshot(2, {"a": "b"}))
    old = snapshot(1, {"x": "y"})
    people.hear(early, old)
    assert early.confirmed(old) == {0: "a"}, "as of its own snapshot"
    learn(people, "a", old)
    assert recall(people).owners == {0: "b"}
    people.hear(recall(people), snapshot(2, splits=1))
    learn(people, "a", old)
    assert recall(people).owners == {}


def test_what_is_from_before_the_first_merge_heard_of_is_not_learnt() -> None:
    people = KnownPeople()
    first = recall(people)
    people.hear(first, snapshot(7))
    learn(people, "a", snapshot(6))
    assert recall(people).owners == {}


def test_merges_that_one_snapshot_does_not_tell_are_asked_for_again() -> None:
    people = KnownPeople()
    one, other = recall(people), recall(people)
    people.hear(one, snapshot(1))
    learn(people, "a", snapshot(1))
    people.hear(other, snapshot(2))
    assert recall(people).since == {"w": 1}, "the second one had not asked for merges"


def test_memory_is_bounded_and_keeps_what_is_asked_for() -> None:
    people, seen = knowing_ann(), snapshot()
    for number in range(3 * remembering.CAPACITY):
        learn(people, "x", seen, (("w", "user_id", str(number)),))
        if number % 1_000 == 0:
            assert recall(people).owners == {0: "a"}
    others = {number: (("w", "user_id", str(number)),) for number in range(3 * remembering.CAPACITY)}
    assert remembering.CAPACITY // 2 < len(people.recall(["w"], others).owners) <= remembering.CAPACITY


def test_workspaces_are_bounded_and_long_identifiers_are_not_kept() -> None:
    people = knowing_ann()
    long = (("w", "user_id", "x" * 400),)
    learn(people, "a", snapshot(), long)
    assert people.recall(["w"], {0: long}).owners == {}
    for number in range(remembering.MAX_WORKSPACES):
        name = f"w{number}"
        people.hear(people.recall([name], {}), Lookup({}, {name: Standing()}, {name: Merges(0, {})}, "monday"))
    learn(people, "a", snapshot())
    assert recall(people) == Recalled({}, {}, {}, "monday")


def test_workspaces_never_answer_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "_NUMBERS", iter((1, 12)))
    people = KnownPeople()
    for name in ("2w", "w"):
        people.hear(people.recall([name], {}), Lookup({}, {name: Standing()}, {name: Merges(0, {})}, "monday"))
    longer: tuple[Identifier, ...] = (("2w", "user_id", "ann"),)
    people.learn(people.recall(["2w"], {0: longer}), [(0, "a")], Lookup({}, {"2w": Standing()}, {"2w": Merges(0, {})}, "monday"))
    assert people.recall(["2w", "w"], {0: longer, 1: (("w", "user_id", "ann"),)}).owners == {0: "a"}
