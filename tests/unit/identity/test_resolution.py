"""The algorithm: find, make, extend, merge, protect."""

from hypothesis import given
from hypothesis import strategies as st

from cdi_identity.domain.changes import Changes
from cdi_identity.domain.decisions import Kind, Reason
from cdi_identity.domain.rules import Rules, TypeRule, Window

from .identity_model import WORKSPACE, GraphInMemory, components, seen

UNLIMITED = Rules(types=[TypeRule("user_id", 1_000)], default_limit=1_000)
TIGHT = Rules(default_limit=2, max_merges=3, max_identifiers=5)

texts = st.builds(lambda kind, number: f"{kind}:{number}", st.sampled_from(["user_id", "email", "anonymous_id"]), st.integers(1, 5))
events = st.lists(st.lists(texts, min_size=1, max_size=4), max_size=14)


def test_unknown_identifiers_make_a_profile_and_known_ones_find_it() -> None:
    graph = GraphInMemory()
    first, second = graph.resolve(seen("anonymous_id:a", "email:e"), seen("email:e"))
    assert first.created
    assert not second.created
    assert first.profile_id == second.profile_id


def test_the_older_profile_wins_a_merge() -> None:
    graph = GraphInMemory()
    [older] = graph.resolve(seen("anonymous_id:a"))
    [younger] = graph.resolve(seen("user_id:u"))
    [merging] = graph.resolve(seen("user_id:u", "anonymous_id:a", message_id="m3"))
    assert merging.profile_id == older.profile_id
    assert merging.merged == [younger.profile_id]
    assert [(m.canonical_profile_id, m.merged_profile_id, m.message_id) for m in graph.last.merges] == [
        (older.profile_id, younger.profile_id, "m3")
    ]
    assert graph.people() == {frozenset({"anonymous_id:a", "user_id:u"})}


def test_the_protection_example_of_the_rules() -> None:
    graph = GraphInMemory()
    [jane] = graph.resolve(seen("user_id:abc123", "email:jane@example1.com"))
    [other] = graph.resolve(seen("user_id:abc456", "email:jane@example1.com"))
    assert other.created
    assert other.profile_id != jane.profile_id
    assert other.demoted == [(WORKSPACE, "email", "jane@example1.com")]
    [decision] = graph.last.decisions
    assert decision.kind is Kind.CREATED
    assert [(demotion.reason, demotion.limited_type) for demotion in decision.demotions] == [(Reason.LIMIT, "user_id")]
    assert graph.people() == {frozenset({"user_id:abc123", "email:jane@example1.com"}), frozenset({"user_id:abc456"})}


def test_identifiers_give_way_lowest_priority_first_until_it_fits() -> None:
    graph = GraphInMemory()
    graph.resolve(seen("user_id:1x", "email:e"))
    [other] = graph.resolve(seen("anonymous_id:a", "email:e", "user_id:2x", "ios.id:i"))
    assert [kind for _, kind, _ in other.demoted] == ["ios.id", "anonymous_id", "email"]


def test_a_shared_device_does_not_make_one_person_of_two() -> None:
    graph = GraphInMemory()
    [first] = graph.resolve(seen("user_id:u1", "anonymous_id:device"))
    [second] = graph.resolve(seen("user_id:u2", "anonymous_id:device"))
    [anonymous] = graph.resolve(seen("anonymous_id:device"))
    assert first.profile_id != second.profile_id
    assert anonymous.profile_id == first.profile_id


def test_the_sixth_identifier_of_a_type_is_left_out() -> None:
    graph = GraphInMemory()
    resolutions = graph.resolve(*(seen("user_id:u", f"anonymous_id:a{number}") for number in range(6)))
    assert len({resolution.profile_id for resolution in resolutions}) == 1
    assert [len(resolution.demoted) for resolution in resolutions] == [0, 0, 0, 0, 0, 1]


def test_one_event_may_merge_many_profiles_and_alias_needs_no_rule_of_its_own() -> None:
    graph = GraphInMemory()
    made = graph.resolve(seen("anonymous_id:a"), seen("anonymous_id:b"), seen("email:e"))
    [alias] = graph.resolve(seen("user_id:u", "anonymous_id:b", "anonymous_id:a", "email:e"))
    assert alias.profile_id == made[0].profile_id
    assert sorted(alias.merged) == sorted(resolution.profile_id for resolution in made[1:])


def test_merges_within_a_batch_are_seen_by_all_of_it() -> None:
    graph = GraphInMemory()
    first, second, third, fourth = graph.resolve(
        seen("anonymous_id:a"), seen("user_id:u"), seen("anonymous_id:a", "user_id:u"), seen("user_id:u")
    )
    assert {r.profile_id for r in (first, second, third, fourth)} == {first.profile_id}
    assert [r.created for r in (first, second, third, fourth)] == [True, False, False, False]
    assert graph.canonical == {"p1": "p1", "p2": "p1"}


def test_hard_caps_stop_growth_and_events_still_resolve() -> None:
    rules = Rules(default_limit=1_000, max_merges=2, max_identifiers=4)
    graph = GraphInMemory(rules)
    graph.resolve(*(seen(f"email:{name}") for name in "abcd"))
    first, second, third = (graph.resolve(seen("email:a", f"email:{name}"))[0] for name in "bcd")
    assert first.merged
    assert second.merged
    assert not third.merged
    assert third.profile_id == first.profile_id
    extended, full = graph.resolve(seen("email:a", "ios.id:1"), seen("email:a", "ios.id:2"))
    assert not extended.demoted
    assert full.demoted == [(WORKSPACE, "ios.id", "2")]
    assert full.profile_id == first.profile_id


def test_a_lowered_limit_leaves_profiles_as_they_are() -> None:
    graph = GraphInMemory()
    graph.resolve(seen("email:a", "email:b", "email:c"))
    graph.rules = Rules(default_limit=2)
    [known] = graph.resolve(seen("email:a", "email:c", "anonymous_id:x"))
    assert not known.demoted
    assert not known.created


def test_traits_of_merged_profiles_go_on_the_newest_first() -> None:
    graph = GraphInMemory()
    graph.resolve(
        seen("anonymous_id:a", traits=b'{"plan":"old","city":"Rome"}', time_us=5),
        seen("user_id:u", traits=b'{"plan":"new"}', time_us=9),
    )
    [merged] = graph.resolve(seen("anonymous_id:a", "user_id:u", traits=b'{"city":"Oslo"}', time_us=4))
    assert graph.traits(merged.profile_id) == {"plan": b'"new"', "city": b'"Rome"'}


def reasons(graph: GraphInMemory) -> list[tuple[str, Reason, str]]:
    """Type, reason and limited type of what was left out in the last batch."""
    return [(d.identifier[1], d.reason, d.limited_type) for decision in graph.last.decisions for d in decision.demotions]


def test_every_demotion_says_which_rule_it_was() -> None:
    graph = GraphInMemory(Rules(types=[TypeRule("passport", unique=True)], max_merges=1, max_identifiers=4))
    graph.resolve(seen("passport:1", "email:a"), seen("passport:2", "email:b"), seen("email:c"), seen("ios.id:1"))
    graph.resolve(seen("email:a", "email:b"))
    assert reasons(graph) == [("email", Reason.UNIQUE, "passport")]
    graph.resolve(seen("passport:3", "email:a"))
    assert reasons(graph) == [("passport", Reason.UNIQUE, "passport")]
    graph.resolve(seen("email:a", "email:c"), seen("email:a", "ios.id:1"))
    assert reasons(graph) == [("ios.id", Reason.MAX_MERGES, "")]
    graph.resolve(seen("email:a", "x:1"), seen("email:a", "x:2"))
    assert reasons(graph) == [("x", Reason.MAX_IDENTIFIERS, "")]
    assert [decision.kind for decision in graph.last.decisions] == [Kind.EXTENDED, Kind.MATCHED]


def test_a_limit_counts_only_what_was_added_within_its_window() -> None:
    day = 86_400_000_000
    graph = GraphInMemory(Rules(types=[TypeRule("email", 2, Window.WEEKLY)]), now_us=100 * day)
    graph.resolve(seen("user_id:u", "email:a"), seen("user_id:u", "email:b"), seen("user_id:u", "email:c"))
    assert reasons(graph) == [("email", Reason.LIMIT, "email")]
    graph.now_us += 8 * day
    graph.resolve(seen("user_id:u", "email:c"), seen("user_id:u", "email:d"), seen("user_id:u", "email:e"))
    assert reasons(graph) == [("email", Reason.LIMIT, "email")]
    assert graph.people() == {frozenset({"user_id:u", "email:a", "email:b", "email:c", "email:d"})}


def test_only_what_changes_or_demotes_is_recorded() -> None:
    graph = GraphInMemory()
    graph.resolve(seen("email:a"), seen("email:a"), seen("email:a", traits=b'{"n":1}'), seen("email:a", "ios.id:1"))
    assert [decision.kind for decision in graph.last.decisions] == [Kind.CREATED, Kind.EXTENDED]


@given(events.flatmap(lambda batch: st.tuples(st.just(batch), st.permutations(batch))))
def test_the_order_of_events_does_not_matter_without_limits(orders: tuple[list[list[str]], list[list[str]]]) -> None:
    given_order, other_order = GraphInMemory(UNLIMITED), GraphInMemory(UNLIMITED)
    given_order.resolve(*(seen(*identifiers) for identifiers in orders[0]))
    for identifiers in orders[1]:
        other_order.resolve(seen(*identifiers))
    assert given_order.people() == other_order.people() == components(orders[0])


@given(events)
def test_a_batch_is_as_good_as_its_events_one_by_one(batch: list[list[str]]) -> None:
    together, single = GraphInMemory(TIGHT), GraphInMemory(TIGHT)
    together.resolve(*(seen(*identifiers) for identifiers in batch))
    for identifiers in batch:
        single.resolve(seen(*identifiers))
    assert together.identifiers() == single.identifiers()
    assert together.canonical == single.canonical


@given(events)
def test_a_batch_done_again_answers_the_same_and_changes_nothing(batch: list[list[str]]) -> None:
    graph = GraphInMemory(TIGHT)
    observations = [seen(*identifiers, traits=b'{"n":1}', time_us=index) for index, identifiers in enumerate(batch)]
    first = graph.resolve(*observations)
    before = graph.state()
    again = graph.resolve(*observations)
    assert [resolution.profile_id for resolution in again] == [resolution.profile_id for resolution in first]
    assert graph.state() == before
    assert graph.last == Changes(decisions=graph.last.decisions)
    assert all(decision.kind is Kind.MATCHED for decision in graph.last.decisions)


@given(events, st.integers(1, 4), st.integers(1, 4))
def test_a_history_replayed_in_other_batches_gives_the_same_graph(history: list[list[str]], size: int, other_size: int) -> None:
    observations = [seen(*identifiers) for identifiers in history]
    graph, anew = GraphInMemory(TIGHT), GraphInMemory(TIGHT)
    for start in range(0, len(observations), size):
        graph.resolve(*observations[start : start + size])
    before = graph.state()
    for start in range(0, len(observations), other_size):
        for replayed in (graph, anew):
            replayed.resolve(*observations[start : start + other_size])
    assert graph.state() == before
    assert anew.state() == before


@given(events)
def test_no_profile_ever_exceeds_a_limit_and_every_event_finds_its_own(batch: list[list[str]]) -> None:
    graph = GraphInMemory(TIGHT)
    resolutions = graph.resolve(*(seen(*identifiers) for identifiers in batch))
    for profile_id, identifiers in graph.identifiers().items():
        kinds = [identifier.partition(":")[0] for identifier in identifiers]
        assert kinds.count("user_id") <= 1
        assert max(map(kinds.count, kinds)) <= TIGHT.default_limit
        assert len(identifiers) <= TIGHT.max_identifiers
        assert graph.merges(profile_id) <= TIGHT.max_merges
    people = graph.identifiers()
    for identifiers, resolution in zip(batch, resolutions, strict=True):
        demoted = {f"{kind}:{value}" for _, kind, value in resolution.demoted}
        assert set(identifiers) - demoted <= people[resolution.profile_id]
