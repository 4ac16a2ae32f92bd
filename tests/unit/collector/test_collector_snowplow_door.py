"""Snowplow's paths and settings, and what any request to them comes to."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdi_collector.domain.intake import Arrival, admit
from cdi_collector.domain.sources import Source, SourceSnapshot, hash_of
from cdi_collector.http.base import Query, Request, Route
from cdi_collector.http.registry import installed
from cdi_collector.http.snowplow import REDIRECT_PATH, STANDARD_PATH, routes
from cdi_collector.settings import Settings
from cdi_kernel.faults import Fault
from cdi_kernel.ids import SourceId, WorkspaceId

SOURCE = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset({hash_of("shop")}))
SOURCES = SourceSnapshot([SOURCE])
SETTINGS = Settings(snowplow_redirect_hosts=("shop.example",))
PAYLOAD = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"


def read(path: str, method: str, query: bytes, body: bytes, headers: dict[bytes, bytes], settings: Settings = SETTINGS) -> Any:
    route = routes(settings)[path]
    assert isinstance(route, Route)
    return route.read(Request(method, path, {}, Query(query), headers, body, SOURCES, "203.0.113.9"))


def test_paths_of_ones_own_take_what_the_standard_path_takes() -> None:
    table = installed(Settings(snowplow_post_paths="com.acme/track, /a/b"))  # type: ignore[arg-type]  # as the environment gives it
    assert table.find("/com.acme/track") == table.find("/a/b") == table.find(STANDARD_PATH) != table.find("/a/c")


@pytest.mark.parametrize(
    "wrong",
    [
        {"snowplow_post_paths": ("/a",)},
        {"snowplow_post_paths": ("/a/b/c",)},
        {"snowplow_post_paths": ("/a/{b}",)},
        {"snowplow_redirect_hosts": ("https://shop.example",)},
        {"snowplow_redirect_hosts": ("*",)},
        {"snowplow_redirect_hosts": ("shop.example:80",)},
        {"snowplow_cookie_name": "a b"},
        {"snowplow_cookie_name": "a\n"},
        {"snowplow_cookie_days": 401},
    ],
)
def test_settings_that_make_no_sense_end_the_start(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_a_path_is_not_taken_from_another_family() -> None:
    with pytest.raises(ValueError, match="/v1/track"):
        installed(Settings(snowplow_post_paths=("v1/track",)))


def test_without_a_cookie_there_is_no_network_user() -> None:
    body = json.dumps({"schema": PAYLOAD, "data": [{"e": "pv", "eid": "e1", "aid": "shop"}]}).encode()
    parcel = read(STANDARD_PATH, "POST", b"", body, {b"cookie": b"sp=x"}, Settings(snowplow_cookie_days=0))
    assert (parcel.items[0].anonymous_id, json.loads(bytes(parcel.items[0].context))) == ("e1", {"snowplow": {"aid": "shop"}})
    assert b"set-cookie" not in dict(parcel.answer.headers)


@given(
    st.sampled_from(sorted(routes(SETTINGS))),
    st.sampled_from(["GET", "POST"]),
    st.binary(max_size=50) | st.text(max_size=50).map(lambda text: f"aid=shop&u=https://shop.example/{text}&{text}".encode()),
    st.binary(max_size=50)
    | st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5))).map(
        lambda data: json.dumps({"schema": PAYLOAD, "data": [{"aid": "shop"}, *data]}).encode()
    ),
    st.fixed_dictionaries(
        {},
        optional={
            b"cookie": st.binary(max_size=20).map(b"sp=".__add__),
            b"sp-anonymous": st.just(b"*"),
            b"x-forwarded-proto": st.binary(max_size=9) | st.just(b"https"),
        },
    ),
)
def test_any_request_is_taken_or_refused_by_a_fault(path: str, method: str, query: bytes, body: bytes, headers: dict[bytes, bytes]) -> None:
    try:
        parcel = read(path, method, query, body, headers)
    except Fault:
        return
    intake = admit(parcel.items, Arrival(SOURCE, 1_767_323_046_000_000, None, "", "", 8, lambda: "made-1"), {})
    assert len(parcel.payloads()) == len(parcel.items) == len(intake.message_ids)
    for name, value in parcel.answer.headers:
        assert value.isascii(), name
        assert value.decode().isprintable(), name
    assert (parcel.answer.status == 302) == (path == REDIRECT_PATH)
