"""Normalization and digests as the vendors publish them, and conditions on traits."""

import hashlib
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdi_identity.domain import traits
from cdi_identity.domain.audiences import (
    Condition,
    Scheme,
    contacts,
    digests,
    normalized_email,
    normalized_phone,
    selected,
)

SCHEMES = st.sampled_from(Scheme)
HEX = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def document(time_us: int = 1, **values: object) -> bytes:
    """As it is stored."""
    return traits.to_document(traits.from_document(msgspec.json.encode({name: (time_us, value) for name, value in values.items()})))


# The vendors' own examples; where each stands is told in the module.


def test_the_examples_of_meta() -> None:
    assert digests({"email": ["John_Smith@gmail.com"], "phone": ["(650)555-1212"]}, Scheme.META, "US") == [
        ("email_sha256", "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"),
        ("phone_sha256", "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"),
    ]
    assert normalized_phone("(650)555-1212", Scheme.META, "US") == "16505551212"


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        ("QuinnY@EXAMPLE.com", "quinny@example.com"),
        ("j.e.f..ferson.Loves.hiking@gmail.com", "jeffersonloveshiking@gmail.com"),
        ("jefferson.Loves.hiking@googlemail.com", "jeffersonloveshiking@googlemail.com"),
        ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
        ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
        (" us er@example.com\t", "user@example.com"),
        ("@example.com", None),
        ("quinn", None),
    ],
)
def test_the_addresses_of_google(given: str, normalized: str | None) -> None:
    assert normalized_email(given, Scheme.GOOGLE) == normalized


def test_the_digests_of_google() -> None:
    hashes = [
        ("email_sha256", "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a"),
        ("phone_sha256", "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30"),
    ]
    for address in ("alexz@example.com", "  ALEXZ@example.com   ", "alexz@EXAMPLE.com"):
        for number in ("(800)555-0100", "+1 800-555-0100", "1 800 555 0100"):
            assert digests({"email": [address], "phone": [number]}, Scheme.GOOGLE, "US") == hashes
    assert normalized_phone("+44-113-496-0987", Scheme.GOOGLE, "") == "+441134960987"


def test_the_rules_of_liveramp() -> None:
    assert normalized_email("MyName@liveramp.com ", Scheme.LIVERAMP) == "myname@liveramp.com"
    assert normalized_phone("+1 (555) 123-4567", Scheme.LIVERAMP, "") == "5551234567"
    assert normalized_phone("+49 30 123456", Scheme.LIVERAMP, "") is None
    expected = hashlib.sha1(b"5551234567", usedforsecurity=False).hexdigest()
    assert digests({"phone": ["+1 (555) 123-4567"]}, Scheme.LIVERAMP, "") == [("phone_sha1", expected)]


def test_only_google_knows_what_gmail_does_with_dots_and_plus_signs() -> None:
    address = " Cloudy.SanFrancisco+shopping@gmail.com "
    assert normalized_email(address, Scheme.META) == "cloudy.sanfrancisco+shopping@gmail.com"
    assert normalized_email(address, Scheme.LIVERAMP) == "cloudy.sanfrancisco+shopping@gmail.com"


@pytest.mark.parametrize(
    ("given", "country", "normalized"),
    [
        ("030 / 123 456", "DE", "+4930123456"),
        ("0049 30 123456", "DE", "+4930123456"),
        ("+49 (0) 30 123456", "", "+4930123456"),
        ("06 6982", "IT", "+39066982"),
        ("030 123456", "", None),
        ("16505551212", "", None),
        ("+1 650", "", None),
        ("+999 123456789", "", None),
        ("call me", "US", None),
        ("", "US", None),
        ("+1 650 555 1212" + " " * 500, "", None),
    ],
)
def test_numbers_need_their_country(given: str, country: str, normalized: str | None) -> None:
    assert normalized_phone(given, Scheme.GOOGLE, country) == normalized


@pytest.mark.parametrize(
    "given", ["a@b@example.com", "a b@example.com", "a@example", "a@.", "a\0@example.com", "a@exam ple.com", sha256("a")]
)
def test_what_is_no_address_is_left_out(given: str) -> None:
    assert normalized_email(given, Scheme.META) is None


@given(st.one_of(st.emails(), st.text(), st.from_regex(r"[A-Za-z.+ ]{1,9}@(gmail|googlemail|Example)\.com", fullmatch=True)), SCHEMES)
def test_normalizing_an_address_again_changes_nothing(given: str, scheme: Scheme) -> None:
    once = normalized_email(given, scheme)
    assert once is None or normalized_email(once, scheme) == once


@given(st.one_of(st.text(), st.from_regex(r"\+?[0-9() /-]{3,18}", fullmatch=True)), st.sampled_from(["", "US", "DE", "IT", "BR"]))
@example("000000", "DE")
def test_normalizing_a_number_again_changes_nothing(given: str, country: str) -> None:
    once = normalized_phone(given, Scheme.GOOGLE, country)
    assert once is None or normalized_phone(once, Scheme.GOOGLE, country) == once
    assert once is None or normalized_phone(once, Scheme.META, "") == once[1:]


@given(
    st.lists(st.one_of(st.emails(), st.text()), max_size=3),
    st.lists(st.from_regex(r"\+?[0-9 -]{3,15}", fullmatch=True), max_size=3),
    SCHEMES,
)
def test_nothing_but_digests_goes_out(addresses: list[str], numbers: list[str], scheme: Scheme) -> None:
    for kind, digest in digests({"email": addresses, "phone": numbers}, scheme, "US"):
        assert kind in ("email_sha256", "phone_sha256", "phone_sha1")
        assert HEX.fullmatch(digest)
        assert digest not in addresses + numbers


def test_a_person_has_the_contacts_of_identifiers_and_traits_once() -> None:
    known = traits.from_document(document(email="b@example.com", phone=16505551212, name="Ada"))
    found = contacts([("email", "a@example.com"), ("email", "b@example.com"), ("user_id", "u"), ("phone", "+1 650 555 1212")], known)
    assert found == {"email": ["a@example.com", "b@example.com"], "phone": ["+1 650 555 1212", "16505551212"]}
    assert len(digests(found, Scheme.META, "US")) == 3
    assert contacts([], traits.from_document(document(email=None, phone=True))) == {"email": [], "phone": []}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("plan"), True),
        (Condition("gone"), False),
        (Condition("missing"), False),
        (Condition("plan", "pro", has_value=True), True),
        (Condition("plan", "free", has_value=True), False),
        (Condition("orders", 3.0, has_value=True), True),
        (Condition("orders", 3, has_value=True, at_least=True), True),
        (Condition("orders", 3.5, has_value=True, at_least=True), False),
        (Condition("plan", 3, has_value=True, at_least=True), False),
        (Condition("vip", True, has_value=True), True),
        (Condition("vip", 1, has_value=True), False),
        (Condition("vip", 1, has_value=True, at_least=True), False),
        (Condition("gone", None, has_value=True), True),
        (Condition("tags", ["a", {"b": 1}], has_value=True), True),
        (Condition("tags", ["a", {"b": True}], has_value=True), False),
        (Condition("tags", ["a"], has_value=True), False),
        (Condition('q"\u00fc\n', "x", has_value=True), True),
    ],
)
def test_conditions(condition: Condition, holds: bool) -> None:
    known = document(plan="pro", orders=3, vip=True, gone=None, tags=["a", {"b": 1}], **{'q"\u00fc\n': "x"})
    assert (selected([known], [condition]) is not None) == holds
    assert not holds or condition.marker in known


def test_all_conditions_have_to_hold() -> None:
    known = document(plan="pro", orders=3)
    assert selected([known], []) is not None
    assert selected([known], [Condition("plan"), Condition("orders", 2, has_value=True)]) is None
    assert selected([b""], []) == {}


def test_the_newest_of_a_persons_documents_counts() -> None:
    documents = [document(2, plan="pro", orders=1), b"", document(1, plan="free", vip=True)]
    assert selected(documents, [Condition("plan", "pro", has_value=True), Condition("vip"), Condition("orders")]) is not None
    assert selected(documents, [Condition("plan", "free", has_value=True)]) is None


def test_a_value_that_cannot_be_read_fulfils_nothing_but_harms_nobody() -> None:
    known = b'{"huge":[1,1e999],"plan":[1,"pro"]}'
    assert selected([known], [Condition("huge", 1, has_value=True, at_least=True)]) is None
    assert selected([known], [Condition("plan", "pro", has_value=True)]) is not None


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=4))
def test_the_marker_of_a_trait_is_in_every_document_that_has_it(values: dict[str, int]) -> None:
    stored = traits.to_document(traits.from_document(msgspec.json.encode({name: (1, value) for name, value in values.items()})))
    assert all(Condition(name).marker in stored for name in values)
