"""Traits: newest wins, values stay what they were, nothing strange fails."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_identity.domain.traits import (
    MAX_TRAITS,
    MAX_VALUE_BYTES,
    Source,
    Traits,
    combined,
    from_document,
    learn,
    shown,
    to_document,
    to_object,
)
from cdi_identity.domain.traits import observed as observed_from


def observed(payload: bytes, time_us: int, message_id: str = "") -> Traits:
    return observed_from(payload, Source(time_us, message_id, 7))


def values(known: Traits) -> dict[str, object]:
    result: dict[str, object] = json.loads(to_object(known))
    return result


def test_newest_wins_whatever_comes_last() -> None:
    known: Traits = {}
    assert learn(known, observed(b'{"plan":"pro","city":"Rome"}', 20))
    assert learn(known, observed(b'{"plan":"free","age":7}', 10))
    assert values(known) == {"plan": "pro", "city": "Rome", "age": 7}


def test_of_two_equally_old_values_the_greater_message_id_stands_and_the_same_changes_nothing() -> None:
    first, second = observed(b'{"plan":"free"}', 10, "m2"), observed(b'{"plan":"pro"}', 10, "m1")
    known = dict(first)
    assert not learn(known, second)
    assert values(known) == {"plan": "free"}
    assert learn(known, observed(b'{"plan":"max"}', 10, "m2"))
    assert not learn(known, observed(b'{"plan":"max"}', 10, "m2"))
    assert values(known) == {"plan": "max"}


def test_documents_of_the_first_form_are_still_read_and_a_source_is_stored_once() -> None:
    old = from_document(b'{"plan":[9,"pro"],"city":[5,"Rome"]}')
    assert values(old) == {"plan": "pro", "city": "Rome"}
    assert to_document(observed(b'{"plan":"pro","city":"Rome"}', 9, "m1")) == b'[[[9,"m1",7]],{"plan":[0,"pro"],"city":[0,"Rome"]}]'
    assert values(combined([to_document(old), b"", to_document(observed(b'{"city":"Oslo"}', 6))])) == {"plan": "pro", "city": "Oslo"}


def test_chosen_traits_are_those_that_are_there() -> None:
    known = observed(b'{"plan":"pro","city":"Rome"}', 9)
    assert to_object(known, ["city", "age"]) == b'{"city":"Rome"}'
    assert to_object(known, ["age"]) == b""


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{", b'"x"', b'{"a":\xff}', b'{"a":"\xff"}', b'{"\\ud800":1}', b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)
def test_what_is_no_object_brings_no_traits(payload: bytes) -> None:
    assert observed(payload, 1) == {}


def test_values_that_databases_refuse_survive() -> None:
    payload = b'{"huge":' + b"9" * 400 + b',"nul":"a\\u0000b","k\\u0000":1e999,"deep":{"a":[null,"\\ud83d\\ude00"]}}'
    stored = from_document(to_document(observed(payload, -5)))
    assert sorted(to_object(stored)) == sorted(payload)
    assert stored["nul"].source == Source(-5, "", 7)


def test_a_value_too_long_and_a_trait_too_many_are_not_kept() -> None:
    known = observed(json.dumps({"long": "x" * MAX_VALUE_BYTES, "n" * 201: 1, "short": 1}).encode(), 1)
    assert values(known) == {"short": 1}
    learn(known, observed(json.dumps({str(number): 1 for number in range(MAX_TRAITS)}).encode(), 2))
    assert len(known) == MAX_TRAITS
    assert learn(known, observed(b'{"short":2}', 3))


moments = st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=8)


@given(moments)
def test_order_does_not_matter_when_times_differ(pairs: list[tuple[str, int]]) -> None:
    news = [observed(json.dumps({key: value}).encode(), time_us) for time_us, (key, value) in enumerate(pairs)]
    one: Traits = {}
    other: Traits = {}
    for item in news:
        learn(one, item)
    for item in reversed(news):
        learn(other, item)
    assert values(one) == values(other)


@given(st.lists(st.sampled_from([b"", b'{"plan":[9,"pro"]}', b'={"age":[5,3]}', "own", "later"]), min_size=1, max_size=3, unique=True))
def test_what_is_shown_are_the_combined_traits(kinds: list[bytes | str]) -> None:
    own = to_document(observed(b'{"plan":{"name":"max"},"city":"K\xc3\xb6ln","a\\u0000":1e999}', 10, "m1"))
    later = to_document(observed(b'{"city":null,"age":7}', 20, "m2") | observed(b'{"z":[1, 2]}', 5, "m3"))
    documents = [kind if isinstance(kind, bytes) else {"own": own, "later": later}[kind] for kind in kinds]
    assert shown(documents) == to_object(combined(documents))


def test_a_computed_trait_stands_before_others_wherever_its_document_is() -> None:
    own, computed = to_document(observed(b'{"orders":"many","plan":"pro"}', 10**17)), b'={"orders":[5,3],"value":[6,0.30]}'
    for documents in ([own, computed], [computed, own], [computed, b"", own]):
        known = combined(documents)
        assert values(known) == {"orders": 3, "plan": "pro", "value": 0.3}
        assert known["orders"].source == Source(5)
    assert values(combined([computed])) == {"orders": 3, "value": 0.3}
