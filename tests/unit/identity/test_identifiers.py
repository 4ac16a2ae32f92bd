"""Which identifiers may link, and in which order they give way."""

import pytest

from cdi_identity.domain.identifiers import DEFAULT_RULES, MAX_PER_EVENT, by_priority, usable

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
