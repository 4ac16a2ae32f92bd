"""Which redirects are followed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_collector.domain.redirects import checked_target
from cdi_kernel.faults import InvalidArgument

HOSTS = ("shop.example", "*.partner.example")


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://shop.example", "https://shop.example"),
        ("http://SHOP.example:8080/a?b=c%20d#e", "http://SHOP.example:8080/a?b=c%20d#e"),
        ("https://www.partner.example/?q=https://evil.example", "https://www.partner.example/?q=https://evil.example"),
        ("https://a.b.partner.example?x", "https://a.b.partner.example?x"),
        ("https://shop.example/café", "https://shop.example/caf%C3%A9"),
    ],
)
def test_named_hosts(url: str, location: str) -> None:
    assert checked_target(url, HOSTS) == location


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a",
        "//shop.example/",
        "javascript://shop.example/%0aalert(1)",
        "ftp://shop.example/",
        "https://evil.example/",
        "https://partner.example/",
        "https://evilpartner.example/",
        "https://shop.example.evil.example/",
        "https://shop.example@evil.example/",
        "https://evil.example\\@shop.example/",
        "https://evil.example/\\shop.example",
        "https://evil.example#.shop.example",
        "https://shop.example:x/",
        "https://shop.example/\r\nSet-Cookie: a=b",
        "https://shop.example/a b",
        " https://shop.example/",
        "https://shop.example/\n",
        "https://shop.example/\ud83d",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        checked_target(url, HOSTS)
    assert raised.value.reason_name == "invalid_field"


@given(st.text(st.characters(codec=None)) | st.from_regex(r"https?://[a-z.@:/\\]*shop\.example.*"))
def test_any_url_is_refused_or_goes_where_it_may(url: str) -> None:
    try:
        location = checked_target(url, HOSTS)
    except InvalidArgument:
        return
    assert location.isascii()
    assert location.isprintable()
    host = location.split("://", 1)[1].replace("?", "/").replace("#", "/").split("/")[0].split(":")[0].lower()
    assert host == "shop.example" or host.endswith(".partner.example")
