"""Taking persons apart: what a merge joined comes back as it was, and stays apart."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from cdi_identity.domain.decisions import Reason
from cdi_identity.domain.rules import Rules, TypeRule
from cdi_identity.domain.separation import NotPossible

from .identity_model import GraphAsTold, GraphInMemory, named, seen

UNLIMITED = Rules(types=[TypeRule("user_id", 1_000)], default_limit=1_000)

texts = st.builds(lambda kind, number: f"{kind}:{number}", st.sampled_from(["user_id", "email", "anonymous_id"]), st.integers(1, 5))
groups = st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), st.sampled_from(["", "a", "b"])), min_size=2, max_size=12)


def filled(events: list[tuple[list[str], str]]) -> GraphInMemory:
    graph = GraphInMemory(UNLIMITED)
    for index, (identifiers, trait) in enumerate(events):
        traits = f'{{"{trait}":{index}}}'.encode() if trait else b""
        graph.resolve(seen(*identifiers, message_id=f"m{index}", traits=traits, time_us=index * 7 % 5))
    return graph


@given(groups, st.data())
def test_a_merge_and_its_undoing_leave_the_graph_as_it_was(events: list[tuple[list[str], str]], data: st.DataObject) -> None:
    graph = filled(events)
    people = sorted(graph.identifiers())
    assume(len(people) > 1)
    one, other = data.draw(st.lists(st.sampled_from(people), min_size=2, max_size=2, unique=True))
    before, traits = graph.state(), {profile_id: graph.traits(profile_id) for profile_id in people}
    graph.merge(one, other)
    canonical = graph.canonical[one]
    assert graph.canonical[other] == canonical
    graph.undo(canonical, other if canonical == one else one)
    assert graph.state() == before
    assert {profile_id: graph.traits(profile_id) for profile_id in people} == traits


@given(groups, st.data())
def test_an_event_that_merges_is_undone_with_all_that_was_merged_before(events: list[tuple[list[str], str]], data: st.DataObject) -> None:
    graph = filled(events)
    people = graph.identifiers()
    assume(len(people) > 1)
    one, other = data.draw(st.lists(st.sampled_from(sorted(people)), min_size=2, max_size=2, unique=True))
    before = graph.state()
    [merging] = graph.resolve(seen(min(people[one]), min(people[other]), message_id="merging"))
    separation = graph.undo(merging.profile_id, *merging.merged)
    assert graph.state() == before
    assert {f"{kind}:{value}" for _, kind, value in separation.identifiers} == people[separation.separated_id]


@given(groups, st.data())
def test_what_was_separated_stays_apart_whatever_comes(events: list[tuple[list[str], str]], data: st.DataObject) -> None:
    graph = filled(events)
    try:
        apart = separated(graph, data)
    except NotPossible:
        reject()
    sides = graph.identifiers()
    left, right = (sides.get(graph.canonical[profile_id], set()) for profile_id in apart)
    assume(left and right)
    for identifiers, _ in events:
        graph.resolve(seen(*identifiers))
    graph.resolve(seen(min(left), min(right)))
    assert graph.canonical[apart[0]] != graph.canonical[apart[1]]
    assert len(graph.added) == sum(map(len, graph.identifiers().values()))


@given(groups, st.data())
def test_who_follows_the_entries_has_the_same_graph(events: list[tuple[list[str], str]], data: st.DataObject) -> None:
    graph, told = GraphInMemory(UNLIMITED), GraphAsTold()
    for index, (identifiers, trait) in enumerate(events):
        traits = f'{{"{trait}":{index}}}'.encode() if trait else b""
        graph.resolve(seen(*identifiers, message_id=f"m{index}", traits=traits, time_us=index * 7 % 5))
        told.batch(graph.last)
        if data.draw(st.booleans()):
            try:
                separated(graph, data, told.separation)
            except NotPossible:
                continue
    assert told.canonical == graph.canonical
    assert told.people() == graph.identifiers()
    for profile_id in graph.identifiers():
        assert told.traits.get(profile_id, {}) == graph.traits(profile_id)


def separated(graph: GraphInMemory, data: st.DataObject, told: Callable[..., None] = lambda separation: None) -> tuple[str, str]:
    """Separates something; the ids of both sides."""
    people = graph.identifiers()
    merged = [(owner, part) for part, owner in graph.canonical.items() if part != owner]
    large = sorted(owner for owner, names in people.items() if len(names) > 1)
    if merged and (not large or data.draw(st.booleans())):
        separation = graph.undo(*data.draw(st.sampled_from(merged)))
    elif large:
        owner = data.draw(st.sampled_from(large))
        names = data.draw(st.lists(st.sampled_from(sorted(people[owner])), min_size=1, max_size=len(people[owner]) - 1, unique=True))
        separation = graph.take(owner, *names)
    else:
        raise NotPossible
    told(separation)
    return separation.remaining_id, separation.separated_id


def test_taking_identifiers_out_takes_their_traits_and_demotes_the_weaker_from_then_on() -> None:
    graph = GraphInMemory()
    [ada] = graph.resolve(seen("user_id:ada", "anonymous_id:phone", traits=b'{"name":"Ada","city":"Rome"}', time_us=1, message_id="m1"))
    graph.resolve(seen("anonymous_id:phone", traits=b'{"city":"Oslo","cart":3}', time_us=2, message_id="m2"))
    separation = graph.take(ada.profile_id, "anonymous_id:phone")
    assert graph.traits(ada.profile_id) == {"name": b'"Ada"'}
    assert graph.traits(separation.separated_id) == {"city": b'"Oslo"', "cart": b"3"}
    [again] = graph.resolve(seen("user_id:ada", "anonymous_id:phone", message_id="m3"))
    assert again.profile_id == ada.profile_id
    [decision] = graph.last.decisions
    assert [(item.identifier, item.reason) for item in decision.demotions] == [(named("anonymous_id:phone"), Reason.SEPARATED)]
    [alone] = graph.resolve(seen("anonymous_id:phone"))
    assert alone.profile_id == separation.separated_id


def test_a_separation_holds_for_those_that_the_sides_become_part_of() -> None:
    graph = GraphInMemory(UNLIMITED)
    [old] = graph.resolve(seen("email:old"))
    [mixed] = graph.resolve(seen("email:a", "email:b"))
    separation = graph.take(mixed.profile_id, "email:b")
    graph.resolve(seen("email:old", "email:a"))
    graph.resolve(seen("email:old", "email:b"))
    assert graph.canonical[separation.separated_id] != old.profile_id
    graph.merge(old.profile_id, separation.separated_id)
    assert graph.apart == set()
    assert graph.people() == {frozenset({"email:old", "email:a", "email:b"})}


@pytest.mark.parametrize("taken", [(), ("email:a", "email:b"), ("email:c",)])
def test_what_cannot_be_taken_out(taken: tuple[str, ...]) -> None:
    graph = GraphInMemory()
    [mixed] = graph.resolve(seen("email:a", "email:b"))
    with pytest.raises(NotPossible):
        graph.take(mixed.profile_id, *taken)
    with pytest.raises(NotPossible):
        graph.undo(mixed.profile_id, mixed.profile_id)
