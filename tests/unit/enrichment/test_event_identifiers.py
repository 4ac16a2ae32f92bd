"""The identifiers and traits that an event brings for the identity graph."""

from typing import Any

import pytest

from cdi.event.v1.event_pb2 import Event
from cdi.identity.v1.rules_pb2 import IdentifierRule
from cdi_enrichment.domain.context import read_context
from cdi_enrichment.domain.identifiers import MAX_IDENTIFIERS, email_of, external_ids, identifiers_of, traits_of
from cdi_enrichment.domain.places import MAX_PATHS, places_of
from cdi_testing.builders import alias, group, identify, track


def identifiers(event: Event, *rules: IdentifierRule) -> list[tuple[str, str]]:
    context = read_context(event.context)
    return identifiers_of(event, context, email_of(event, context), external_ids(context), places_of(rules) if rules else None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"traits": {"email": "A@B.de "}}, "a@b.de"),
        ({"context": {"traits": {"email": "c@b.de"}}}, "c@b.de"),
        ({"properties": {"email": "p@b.de"}}, "p@b.de"),
        ({"traits": {"email": "a@b.de"}, "context": {"traits": {"email": "c@b.de"}}}, "a@b.de"),
        ({"traits": {"email": 5}, "properties": {"email": "p@b.de"}}, "p@b.de"),
        ({"properties": {"user": {"email": "deep@b.de"}}}, None),
        ({"traits": {"email": "  "}}, None),
    ],
)
def test_where_the_address_comes_from(fields: dict[str, Any], expected: str | None) -> None:
    event = track(**fields)
    assert email_of(event, read_context(event.context)) == expected


def test_the_address_of_an_account_is_not_the_person_s() -> None:
    assert identifiers(group(user_id="u", traits={"email": "office@account.example"})) == [("user_id", "u")]


def test_all_kinds_in_the_order_of_their_strength() -> None:
    event = identify(
        user_id="u",
        anonymous_id="a",
        traits={"email": "e@b.de"},
        context={
            "externalIds": [
                {"id": "g-1", "type": "GA_Client_ID", "collection": "users", "encoding": "none"},
                {"id": 17, "type": "braze_id"},
                {"id": "acc", "type": "account", "collection": "accounts"},
                {"id": "hashed", "type": "x", "encoding": "sha256"},
                {"id": "", "type": "x"},
                {"type": "x"},
                {"id": "g-1", "type": "ga_client_id"},
            ],
            "device": {"id": "d", "type": "iOS", "advertisingId": "ad", "adTrackingEnabled": True, "token": "t"},
        },
    )
    assert identifiers(event) == [
        ("user_id", "u"),
        ("email", "e@b.de"),
        ("anonymous_id", "a"),
        ("ga_client_id", "g-1"),
        ("braze_id", "17"),
        ("ios.id", "d"),
        ("ios.idfa", "ad"),
        ("ios.push_token", "t"),
    ]


def test_the_ids_of_vendors_are_where_segment_looks_for_them() -> None:
    context = {
        "integrations": {"Google Analytics": {"clientId": "1033501218.1368477899"}, "All": True},
        "Braze": {"braze_id": "b"},
        "traits": {"crossDomainId": "x"},
    }
    found = [("user_id", "u"), ("ga_client_id", "1033501218.1368477899"), ("braze_id", "b"), ("cross_domain_id", "x")]
    assert identifiers(track(user_id="u", context=context)) == found
    wrong = {"integrations": {"Google Analytics": True}, "Braze": "b", "traits": {"crossDomainId": 5}}
    assert identifiers(track(user_id="u", context=wrong)) == [("user_id", "u")]
    external = context | {"externalIds": [{"id": "b", "type": "braze_id"}]}
    assert identifiers(track(user_id="u", context=external)).count(("braze_id", "b")) == 1


def rule(kind: str, *paths: str, disabled: bool = False) -> IdentifierRule:
    return IdentifierRule(type=kind, paths=paths, disabled=disabled)


def test_rules_say_where_else_identifiers_are() -> None:
    rules = (
        rule("phone", "traits.phone", "context.traits.phone"),
        rule("loyalty_id", "properties.loyalty_id", "properties.card.number"),
        rule("tablet", "context.device.id"),
        rule("mail", "traits.email"),
        rule("email", "properties.buyer"),
    )
    event = track(
        user_id="u",
        traits={"phone": "+491", "email": "A@b.de"},
        properties={"loyalty_id": 17, "card": {"number": "c-1", "other": [1]}, "buyer": " B@b.de "},
        context={"device": {"id": "d", "name": "x"}, "traits": {"phone": "+492"}},
    )
    expected = {
        ("user_id", "u"),
        ("email", "a@b.de"),
        ("phone", "+491"),
        ("phone", "+492"),
        ("loyalty_id", "17"),
        ("loyalty_id", "c-1"),
        ("tablet", "d"),
        ("mail", "A@b.de"),
        ("email", "b@b.de"),
    }
    found = identifiers(event, *rules)
    assert (set(found), len(found)) == (expected, len(expected))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"properties": {"a": {"b": {"c": "x"}}}},
        {"properties": {"a": "x"}},
        {"properties": {"a": {"b": ""}}},
        {"properties": {"a": {"b": None}}},
        {"properties": {"a": {"b": True}}},
        {"properties": {"a": {"b": 1.5}}},
        {"properties": {"a": [{"b": "x"}]}},
        {"properties": {"x": {"a": {"b": "x"}}}},
        {"traits": {"a": {"b": "x"}}},
    ],
)
def test_what_is_no_value_at_the_place_is_no_identifier(fields: dict[str, Any]) -> None:
    assert identifiers(track(user_id="u", **fields), rule("x", "properties.a.b")) == [("user_id", "u")]


def test_malformed_json_and_odd_paths_harm_nobody() -> None:
    event = track(user_id="u")
    event.properties = b'{"a":{"b":"x"}'
    assert identifiers(event, rule("x", "properties.a.b")) == [("user_id", "u")]
    event.properties = b'{"a":' + b"[" * 100_000
    assert identifiers(event, rule("x", "properties.a.b")) == [("user_id", "u")]
    for path in ("", "properties", "properties.", "properties..b", "userId", "secret.a"):
        assert identifiers(track(user_id="u", properties={"": "x", "b": "y"}), rule("x", path)) == [("user_id", "u")]
    many = [f"properties.p{number}" for number in range(2 * MAX_PATHS)]
    late = track(user_id="u", properties={f"p{MAX_PATHS}": "late", f"p{MAX_PATHS - 1}": "last"})
    assert identifiers(late, rule("x", *many)) == [("user_id", "u"), ("x", "last")]


def test_a_type_that_never_links_is_not_looked_for_and_an_account_s_traits_are_not_the_person_s() -> None:
    assert identifiers(track(user_id="u", properties={"a": "x"}), rule("x", "properties.a", disabled=True)) == [("user_id", "u")]
    assert identifiers(group(user_id="u", traits={"phone": "+49"}), rule("phone", "traits.phone")) == [("user_id", "u")]


def test_the_group_is_an_identifier_only_if_the_rules_have_one_for_it() -> None:
    assert identifiers(group("account-1", user_id="u"), rule("group_id")) == [("user_id", "u"), ("group_id", "account-1")]
    assert identifiers(group("account-1", user_id="u"), rule("group_id", disabled=True)) == [("user_id", "u")]
    assert not places_of([rule("user_id"), rule("email")])


def test_without_permission_the_advertising_id_is_left_out() -> None:
    event = track(user_id="u", context={"device": {"id": "d", "type": "android", "advertisingId": "ad"}})
    assert identifiers(event) == [("user_id", "u"), ("android.id", "d")]


def test_an_alias_joins_its_previous_id_as_an_anonymous_one() -> None:
    assert identifiers(alias("before", user_id="u")) == [("user_id", "u"), ("anonymous_id", "before")]


def test_the_group_is_nobody_s_identifier() -> None:
    assert identifiers(group("account-1", user_id="u")) == [("user_id", "u")]


def test_too_long_and_unstorable_values_are_left_out_and_the_number_is_bounded() -> None:
    many = [{"id": f"v{i}", "type": "x"} for i in range(100)]
    assert len(identifiers(track(user_id="u", context={"externalIds": many}))) == MAX_IDENTIFIERS
    assert identifiers(track(user_id="u", context={"externalIds": [{"id": "x" * 501, "type": "x"}, {"id": "a\x00", "type": "x"}]})) == [
        ("user_id", "u")
    ]


def test_traits_are_those_of_an_identify_or_of_its_context() -> None:
    assert traits_of(identify(traits={"plan": "pro"})) == b'{"plan": "pro"}'
    assert traits_of(identify(traits=None, context={"traits": {"plan": "pro"}})) == b'{"plan": "pro"}'
    assert traits_of(track(traits={"plan": "pro"})) == b""
    assert traits_of(group(traits={"plan": "pro"})) == b""
