"""Which identifiers may link, and in which order they give way."""

import pytest

from cdi_identity.domain.identifiers import MAX_PER_EVENT, by_priority, usable
from cdi_identity.domain.rules import DEFAULT_RULES, Rules, TypeRule, problems

from .identity_model import brought


@pytest.mark.parametrize("value", ["", "0", "-", "000", "0-0", "--", "-1", "null", "anonymous", "a\0b", "x" * 501])
def test_a_blocked_value_does_not_link(value: str) -> None:
    assert usable("acme", [brought(f"user_id:{value}"), brought("email:ada@example.com")]) == (("acme", "email", "ada@example.com"),)


@pytest.mark.parametrize("value", ["1", "10", "-2", "0-1", "Anonymous Ada", "x" * 500, "ada\n", "名前"])
def test_other_values_link(value: str) -> None:
    assert usable("acme", [brought(f"user_id:{value}")]) == (("acme", "user_id", value),)


@pytest.mark.parametrize("kind", ["", "a\0b", "x" * 101])
def test_a_type_that_is_no_name_does_not_link(kind: str) -> None:
    assert usable("acme", [brought(f"{kind}:1")]) == ()


def test_an_event_has_at_most_fifty_identifiers() -> None:
    assert len(usable("acme", [brought(f"email:{number + 1}") for number in range(60)])) == MAX_PER_EVENT


def test_priority_is_user_id_then_email_then_the_alphabet() -> None:
    texts = ("ios.id:1", "email:e", "anonymous_id:b", "user_id:u", "anonymous_id:a", "email:e")
    identifiers = usable("acme", map(brought, texts))
    assert [identifier[1:] for identifier in by_priority(identifiers, DEFAULT_RULES)] == [
        ("user_id", "u"),
        ("email", "e"),
        ("anonymous_id", "b"),
        ("anonymous_id", "a"),
        ("ios.id", "1"),
    ]


def test_rules_block_values_patterns_and_types() -> None:
    rules = Rules(
        types=[TypeRule("ios.id", disabled=True)],
        blocked_values=frozenset({"guest"}),
        blocked_patterns=[r"test-\d+", ".*@example\\.invalid"],
    )
    texts = ("user_id:guest", "user_id:test-12", "email:x@example.invalid", "ios.id:1", "user_id:test-12b", "user_id:null", "email:guest2")
    assert [kind + ":" + value for _, kind, value in usable("acme", map(brought, texts), rules)] == ["user_id:test-12b", "email:guest2"]


def test_a_catastrophic_pattern_takes_linear_time() -> None:
    rules = Rules(blocked_patterns=["(a|a)*b", "(a*)*b", "(.*)*x"])
    assert usable("acme", [brought("user_id:" + "a" * 500)] * 50, rules)


def test_priorities_are_configurable_and_fall_back_to_the_defaults() -> None:
    rules = Rules(types=[TypeRule("phone", priority=1), TypeRule("email", priority=3), TypeRule("user_id")])
    identifiers = usable("acme", map(brought, ("email:e", "zip:z", "anonymous_id:a", "phone:p", "user_id:u")))
    assert [kind for _, kind, _ in by_priority(identifiers, rules)] == ["phone", "user_id", "email", "anonymous_id", "zip"]


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        (Rules(types=[TypeRule("Email")]), "identifiers[0].type"),
        (Rules(types=[TypeRule("")]), "identifiers[0].type"),
        (Rules(types=[TypeRule("a"), TypeRule("a")]), "identifiers"),
        (Rules(types=[TypeRule("a", unique=True), TypeRule("b", unique=True)]), "identifiers"),
        (Rules(types=[TypeRule("a", paths=["traits.p"] * 21)]), "identifiers[0].paths"),
        (Rules(types=[TypeRule("a", paths=["traits.p", "trait.p"])]), "identifiers[0].paths[1]"),
        (Rules(types=[TypeRule("a", paths=["properties"])]), "identifiers[0].paths[0]"),
        (Rules(types=[TypeRule("a", paths=["context.a..b"])]), "identifiers[0].paths[0]"),
        (Rules(types=[TypeRule(kind, paths=["traits.p"] * 17) for kind in "abcdef"]), "identifiers"),
        (Rules(blocked_patterns=["ok", "("]), "blocked_patterns[1]"),
        (Rules(blocked_patterns=[r"(?=look)ahead"]), "blocked_patterns[0]"),
        (Rules(blocked_patterns=["((a{100}){100}){100}"]), "blocked_patterns[0]"),
        (Rules(max_merges=1_001), "max_merges"),
        (Rules(event_traits=[""]), "event_traits"),
    ],
)
def test_what_is_no_rule_is_named(rules: Rules, field: str) -> None:
    assert [name for name, _ in problems(rules)] == [field]


def test_the_defaults_have_no_problem() -> None:
    assert list(problems(DEFAULT_RULES)) == []
