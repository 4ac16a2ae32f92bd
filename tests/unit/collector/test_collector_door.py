"""What every family of the HTTP door builds on: paths, queries, answers, base64."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_collector.domain import base64_text
from cdi_collector.faults import MethodNotAllowed
from cdi_collector.http.base import Page, Query, Request, RouteTable
from cdi_collector.http.responses import Response, rendered
from cdi_kernel.faults import InvalidArgument, Unavailable


def page(name: str) -> Page:
    def respond(_: Request) -> Response:
        return Response(200, name.encode())

    return Page(respond)


EXACT, KEY, ANY = page("exact"), page("key"), page("any")
TABLE = RouteTable({"/v1/settings": EXACT}, {"/v1/{key}": KEY, "/{version}/{key}/": ANY})


@pytest.mark.parametrize(
    ("path", "handler", "params"),
    [
        ("/v1/settings", EXACT, {}),
        ("/v1/k1", KEY, {"key": "k1"}),
        ("/v2/k1/", ANY, {"version": "v2", "key": "k1"}),
        ("/v1/", None, {}),
        ("/v2/k1", None, {}),
        ("/v2//", None, {}),
        ("/v1/k1/more", None, {}),
        ("/", None, {}),
        ("", None, {}),
        ("*", None, {}),
    ],
)
def test_paths(path: str, handler: Page | None, params: dict[str, str]) -> None:
    assert TABLE.find(path) == (None if handler is None else (handler, params))


def test_a_query_is_decoded() -> None:
    query = Query(b"a=1&b=x%20y+z&empty=&a=2&%FF=%FF&flag")
    assert [query.get(name) for name in ("a", "b", "empty", "flag", "none")] == ["2", "x y z", "", "", None]
    assert Query(b"").get("a") is None


@given(st.binary(max_size=200))
def test_any_query_can_be_asked(raw: bytes) -> None:
    assert all(isinstance(value, str) for value in Query(raw).values().values())


def test_a_header_is_bounded_text() -> None:
    request = Request("GET", "/", {}, Query(b""), {b"a": b"x\0\xff" * 1_000}, b"", None, "")  # type: ignore[arg-type]
    assert request.header(b"a") == ("x\0\xff" * 1_000)[:1_024].replace("\0", "")
    assert request.header(b"b") == ""


def test_a_fault_says_what_to_do() -> None:
    assert dict(rendered(MethodNotAllowed({"POST", "GET"})).headers)[b"allow"] == b"GET, POST"
    assert dict(rendered(Unavailable("nats", "away", retry_after=1.2)).headers)[b"retry-after"] == b"2"


@given(st.binary(max_size=100), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]), st.booleans(), st.booleans())
def test_base64_of_every_kind(content: bytes, encode: object, padded: bool, spaced: bool) -> None:
    text: bytes = encode(content)  # type: ignore[operator]
    text = text if padded else text.rstrip(b"=")
    text = text.replace(b"+", b" ") if spaced else text
    assert base64_text.decoded(text) == content


@given(st.binary(max_size=100))
def test_any_bytes_are_base64_or_malformed(text: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        assert len(base64_text.decoded(text)) <= len(text)
