"""The identifiers and traits that an event brings for the identity graph."""

from typing import Any

import pytest

from cdi.event.v1.event_pb2 import Event
from cdi_enrichment.domain.context import read_context
from cdi_enrichment.domain.identifiers import MAX_IDENTIFIERS, email_of, external_ids, identifiers_of, traits_of
from cdi_testing.builders import alias, group, identify, track


def identifiers(event: Event) -> list[tuple[str, str]]:
    context = read_context(event.context)
    return identifiers_of(event, context, email_of(event, context), external_ids(context))


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
