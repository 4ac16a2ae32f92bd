"""The enrichers: golden examples, and that no subject makes one fail."""

import json
from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from google.protobuf.json_format import MessageToDict
from hypothesis import assume, given
from hypothesis import strategies as st

from cdi.event.v1.event_pb2 import Event
from cdi_enrichment.domain.claims import Place
from cdi_enrichment.domain.context import Page
from cdi_enrichment.domain.passage import Passage, Subject
from cdi_enrichment.domain.tracking_plan import PlanSnapshot
from cdi_enrichment.enrichers import REGISTRY, Enrichers, ReferenceFiles
from cdi_enrichment.enrichers.geo import public_address
from cdi_enrichment.settings import packaged_countries
from cdi_testing.builders import identify, page, track

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {APPLE}"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@cache
def files() -> ReferenceFiles:
    return ReferenceFiles(packaged_countries())


@cache
def enrichers(*names: str) -> Enrichers:
    """Those of the names, all if none is given."""
    return Enrichers(files(), disabled=REGISTRY.keys() - set(names or REGISTRY))


def enriched(event: Event) -> dict[str, Any]:
    """What all enrichers find, as a reader of JSON sees it."""
    passage = Passage(event, Place(1, 0), 0)
    assert passage.validate(PlanSnapshot()) is None
    return shown(*enrichers()([passage.subject]))


def of(name: str, **subject: Any) -> dict[str, Any]:
    found: dict[str, Any] = shown(*enrichers(name)([Subject(**subject)])).get(name, {})
    return found


def shown(field: bytes) -> dict[str, Any]:
    """The field ``enrichments`` of an event as a reader of JSON sees it."""
    found = Event.FromString(field).enrichments
    return MessageToDict(found, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (FIREFOX, {"browser": "Firefox", "browser_version": "128.0", "os": "Windows", "os_version": "10"}),
        (IPHONE, {"browser": "Mobile Safari", "browser_version": "17.5", "os": "iOS", "os_version": "17.5", "device": "iPhone"}),
        (GOOGLEBOT, {"browser": "Googlebot", "browser_version": "2.1", "device": "Spider", "bot": True}),
        ("", {}),
        ("\x00\ud7ff" * 2000, {}),
    ],
)
def test_user_agent(user_agent: str, expected: dict[str, Any]) -> None:
    assert of("user_agent", user_agent=user_agent) == expected


@pytest.mark.parametrize(
    ("url", "search", "expected"),
    [
        (
            "https://shop.example/a?utm_source=news&utm_medium=email&utm_campaign=May%20sale&utm_term=red+shoes&utm_content=top#x",
            None,
            {"source": "news", "medium": "email", "name": "May sale", "term": "red shoes", "content": "top"},
        ),
        ("https://shop.example/?gclid=Abc-1&utm_source=google", None, {"source": "google", "click_id_type": "gclid", "click_id": "Abc-1"}),
        ("https://shop.example/?fbclid=F&msclkid=M", None, {"click_id_type": "fbclid", "click_id": "F"}),
        ("https://shop.example/", "?ttclid=T", {"click_id_type": "ttclid", "click_id": "T"}),
        ("https://shop.example/?li_fat_id=L&utm_source=", None, {"click_id_type": "li_fat_id", "click_id": "L"}),
        ("https://shop.example/?notutm_source=x&xgclid=1", None, {}),
        ("https://shop.example/?utm_source=a&utm_source=b", None, {"source": "a"}),
        ("?utm_source=%ff%", None, {"source": "\ufffd%"}),
        (None, None, {}),
    ],
)
def test_campaign(url: str | None, search: str | None, expected: dict[str, str]) -> None:
    assert of("campaign", page=Page(url=url, search=search)) == expected


def test_context_campaign_wins_over_the_url() -> None:
    found = enriched(
        track(context={"campaign": {"source": "own", "name": 5}, "page": {"url": "https://a.example/?utm_source=u&utm_campaign=c&gclid=1"}})
    )
    assert found["campaign"] == {"source": "own", "name": "c", "click_id_type": "gclid", "click_id": "1"}


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        (
            "https://www.google.com/search?q=blue+shoes",
            {"medium": "search", "source": "Google", "host": "google.com", "term": "blue shoes"},
        ),
        ("https://www.google.co.uk/", {"medium": "search", "source": "Google", "host": "google.co.uk"}),
        ("https://de.search.yahoo.com/search?p=x", {"medium": "search", "source": "Yahoo", "host": "de.search.yahoo.com", "term": "x"}),
        ("https://duckduckgo.com/?q=", {"medium": "search", "source": "DuckDuckGo", "host": "duckduckgo.com"}),
        ("https://m.facebook.com/", {"medium": "social", "source": "Facebook", "host": "m.facebook.com"}),
        ("https://t.co/abc", {"medium": "social", "source": "X", "host": "t.co"}),
        ("https://mail.google.com/mail/u/0", {"medium": "email", "source": "Gmail", "host": "mail.google.com"}),
        ("android-app://com.google.android.gm/", {"medium": "email", "source": "Gmail", "host": "com.google.android.gm"}),
        ("https://user:pw@shop.example:8443/x?q=1", {"medium": "internal", "host": "shop.example"}),
        ("HTTPS://WWW.Shop.Example/x", {"medium": "internal", "host": "shop.example"}),
        ("https://blog.example/x?q=1", {"medium": "other", "host": "blog.example"}),
        ("https://notgoogle.com/", {"medium": "other", "host": "notgoogle.com"}),
        ("https://google.com.evil.example/", {"medium": "other", "host": "google.com.evil.example"}),
        ("about:blank", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_referrer(referrer: str | None, expected: dict[str, str]) -> None:
    assert of("referrer", page=Page(url="https://www.shop.example/p", referrer=referrer)) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", {"country": "US"}),
        ("193.99.144.80", {"country": "DE"}),
        ("2a02:2e0:3fe:1001:302::", {"country": "DE"}),
        ("::ffff:8.8.8.8", {"country": "US"}),
        (" 8.8.8.8 ", {"country": "US"}),
        ("10.1.2.3", {}),
        ("127.0.0.1", {}),
        ("203.0.113.9", {}),
        ("0.0.0.0", {}),
        ("224.0.0.1", {}),
        ("fe80::1%eth0", {}),
        ("::1", {}),
        ("8.8.8.8, 1.1.1.1", {}),
        ("nonsense", {}),
        ("", {}),
    ],
)
def test_geo(address: str, expected: dict[str, str]) -> None:
    assert of("geo", client_ip=address) == expected


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("ada@company.example", {"valid_syntax": True}),
        ("ada+tag@gmail.com", {"valid_syntax": True, "free_provider": True}),
        ("info@company.example", {"valid_syntax": True, "role_account": True}),
        ("no-reply+x@company.example", {"valid_syntax": True, "role_account": True}),
        ("x@mailinator.com", {"valid_syntax": True, "disposable": True}),
        ("x@sub.mailinator.com", {"valid_syntax": True, "disposable": True}),
        ("ü@company.example", {"valid_syntax": True}),
        ("no-at-sign", {}),
        ("a@@b.example", {}),
        ("a b@b.example", {}),
        ("a@localhost", {}),
        ("a" * 300 + "@b.example", {}),
    ],
)
def test_email_quality(email: str, expected: dict[str, bool]) -> None:
    assert of("email_quality", email=email) == expected


LOCAL_PARTS = st.text(alphabet=st.sampled_from("aB9.+-_!'@ ü\"\\"), max_size=70)
DOMAINS = st.sampled_from(["company.example", "münchen.de", "b", "x..de", "-x.de", "x.test", "", "gmail.com", "a" * 64 + ".de"])


@given(LOCAL_PARTS, DOMAINS)
def test_the_quick_check_of_an_address_agrees_with_the_full_one(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    try:
        validate_email(address, check_deliverability=False)
        valid = True
    except EmailNotValidError:
        valid = False
    assert of("email_quality", email=address).get("valid_syntax", False) is valid


def test_a_web_journey_is_enriched_as_a_whole() -> None:
    context = {
        "userAgent": FIREFOX,
        "ip": "193.99.144.80",
        "page": {"url": "https://shop.example/?utm_source=news&gclid=1", "referrer": "https://www.bing.com/search?q=cd"},
    }
    assert enriched(identify(context=context, traits={"email": " Ada@GMAIL.com "})) == {
        "user_agent": {"browser": "Firefox", "browser_version": "128.0", "os": "Windows", "os_version": "10"},
        "campaign": {"source": "news", "click_id_type": "gclid", "click_id": "1"},
        "referrer": {"medium": "search", "source": "Bing", "host": "bing.com", "term": "cd"},
        "geo": {"country": "DE"},
        "email_quality": {"valid_syntax": True, "free_provider": True},
    }


def test_a_page_event_of_a_server_side_sdk_has_its_page_in_the_properties() -> None:
    event = page(
        properties={"url": "https://shop.example/?utm_source=x", "referrer": "https://t.co/1"}, context={"library": {"name": "python"}}
    )
    found = enriched(event)
    assert found["campaign"] == {"source": "x"}
    assert found["referrer"]["source"] == "X"
    assert "campaign" not in enriched(track(properties={"url": "https://shop.example/?utm_source=x"}))


def test_switched_off_enrichers_are_not_made() -> None:
    subject = Subject(user_agent=FIREFOX, client_ip="8.8.8.8", email="a@b.de")
    assert set(shown(*Enrichers(files(), disabled={"geo", "user_agent"})([subject]))) == {"email_quality"}
    assert Enrichers(files(), disabled=REGISTRY)([subject, subject]) == [b"", b""]


TEXTS = st.text(max_size=40) | st.sampled_from(
    ["https://", "http://[", "http://a@b@c?q=%", "::", "1.2.3", "@", "a@", "@b", "\x00", "?utm_source"]
)
SPECIAL_ADDRESSES = (
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "2001:db8::/32", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


def _around(network: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Addresses at both borders of a network."""
    block = ip_network(network)
    first, last = block.network_address, block.broadcast_address
    return st.sampled_from([first, last, first - 1, first + 1, last - 1, *([last + 1] if int(last) + 1 < 2**block.max_prefixlen else [])])


SUBJECTS = st.builds(
    Subject,
    page=st.builds(Page, url=st.none() | TEXTS, referrer=st.none() | TEXTS, search=st.none() | TEXTS),
    user_agent=TEXTS,
    client_ip=TEXTS,
    email=st.none() | TEXTS,
)


@given(SUBJECTS)
def test_no_subject_makes_an_enricher_fail(subject: Subject) -> None:
    (found,) = enrichers()([subject])
    assert enrichers()([Subject(), subject, subject]) == [b"", found, found]
    Event.FromString(found)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6, network="2000::/3") | st.sampled_from(SPECIAL_ADDRESSES).flatmap(_around))
def test_an_address_is_public_when_the_standard_library_says_so(address: IPv4Address | IPv6Address) -> None:
    # Of these the versions of Python say different things.
    assume(address not in ip_network("192.0.0.0/24") and address not in ip_network("3fff::/20") and address not in ip_network("2001::/23"))
    site_local = isinstance(address, IPv6Address) and address.is_site_local
    expected = address.is_global and not address.is_multicast and not address.is_reserved and not site_local
    assert bool(public_address(str(address))) is expected


def _values() -> Iterator[Any]:
    yield from (None, True, 5, 1.5, "x", [], {}, ["x"], {"url": 5}, {"email": ["x"]}, "https://a.example/?gclid=%zz")


@given(st.dictionaries(st.sampled_from(["ip", "userAgent", "page", "campaign", "traits", "device"]), st.sampled_from(list(_values()))))
def test_no_context_makes_the_pipeline_fail(context: dict[str, Any]) -> None:
    enriched(track(context=context, properties={"email": 5, "url": context.get("page")}))
    assert json.dumps(context)
