"""Rates, origins, addresses, signals and keys: the rules of one source."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_collector.admission import Budget, Pace
from cdi_collector.domain import protection
from cdi_collector.domain.client_event import ClientEvent
from cdi_collector.domain.protection import IpHandling, Protection, hidden_in_payload, hide_addresses, kept_address
from cdi_collector.domain.rate_limit import RateLimit, charged
from cdi_collector.domain.signals import Signals
from cdi_collector.domain.sources import Source, fingerprint_of, hash_of
from cdi_collector.faults import OverRate
from cdi_collector.http.responses import rendered
from cdi_kernel.faults import NotFound, TooLarge, Unavailable
from cdi_kernel.ids import SourceId, WorkspaceId

SOURCE = Source(WorkspaceId("acme"), SourceId("web"), False, 1, frozenset())
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36"


@given(
    rate=st.floats(min_value=0.01, max_value=1_000_000.0),
    burst=st.integers(min_value=1, max_value=1_000),
    requests=st.lists(st.tuples(st.integers(0, 3 * 10**9), st.integers(1, 1_000)), min_size=1, max_size=40),
)
def test_no_window_admits_more_than_burst_and_rate(rate: float, burst: int, requests: list[tuple[int, int]]) -> None:
    limit = RateLimit(rate, burst)
    state, now, admitted = 0, 10**12, list[tuple[int, int]]()
    for pause, events in requests:
        now += pause
        state, wait = charged(limit, state, now, min(events, burst))
        if not wait:
            admitted.append((now, min(events, burst)))
    for first in range(len(admitted)):
        total = 0
        for when, events in admitted[first:]:
            total += events
            assert total <= burst + rate * (when - admitted[first][0]) / 1e9 + 1e-6


@given(st.floats(min_value=0.01, max_value=1_000_000.0), st.integers(1, 1_000), st.integers(1, 1_000), st.integers(0, 10**12))
def test_whoever_waits_as_told_is_taken(rate: float, burst: int, events: int, paid_off: int) -> None:
    limit, now, events = RateLimit(rate, burst), 10**11, min(events, burst)
    state, wait = charged(limit, paid_off, now, events)
    if wait:
        assert state == paid_off
        assert charged(limit, paid_off, now + wait - 1, events)[1] == 1
        assert charged(limit, paid_off, now + wait, events)[1] == 0


def paced(rate: float, burst: int, source_id: str = "web") -> Source:
    return Source(WorkspaceId("acme"), SourceId(source_id), False, 1, frozenset(), protection=Protection(rate_limit=RateLimit(rate, burst)))


def test_a_source_is_held_to_its_rate() -> None:
    pace, slow = Pace(None), paced(0.01, 10)
    pace.charge(slow, 10)
    pace.charge(paced(0.01, 10, "app"), 10)
    pace.charge(SOURCE, 1_000_000)
    with pytest.raises(OverRate) as caught:
        pace.check(slow)
    headers = dict(rendered(caught.value).headers)
    assert 1 <= int(headers[b"retry-after"]) <= 100
    assert abs(int(headers[b"x-ratelimit-reset"]) - caught.value.reset_seconds) == 0
    with pytest.raises(TooLarge):
        pace.charge(slow, 11)
    by_default = Pace(RateLimit(0.01, 1))
    by_default.charge(SOURCE, 1)
    with pytest.raises(OverRate):
        by_default.charge(SOURCE, 1)


def test_sources_that_paused_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_collector.admission._PACED_SOURCES", 10)
    pace = Pace(None)
    for number in range(100):
        pace.charge(paced(1e6, 1, f"s{number}"), 1)
    assert len(pace._paid_off) <= 10


def test_a_budget_counts_requests() -> None:
    budget = Budget(1_000, 2)
    budget.enter()
    budget.enter()
    with pytest.raises(Unavailable) as caught:
        budget.enter()
    assert caught.value.retry_after == 1.0
    budget.leave()
    budget.enter()


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("https://shop.example", True),
        ("HTTPS://SHOP.EXAMPLE", True),
        ("https://a.b.shop.org", True),
        ("https://shop.org", False),
        ("https://evilshop.org", False),
        ("http://a.shop.org", False),
        ("http://shop.example", False),
        ("https://shop.example.evil.org", False),
        ("https://shop.example:8443", False),
        ("null", False),
        ("", False),
    ],
)
def test_origins(origin: str, admitted: bool) -> None:
    assert Protection(("https://*.shop.org", "https://shop.example")).admits(origin) is admitted
    assert Protection().admits(origin)


@pytest.mark.parametrize("wrong", ["shop.example", "https://", "https://a/b", "https://a b", "https://*", "*", "https://a.*.b"])
def test_origins_that_are_none(wrong: str) -> None:
    assert [field for field, _ in protection.violations(Protection((wrong,)))] == ["source.allowed_origins"]


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_rates_that_are_none(rate: float) -> None:
    assert protection.violations(Protection(rate_limit=RateLimit(rate)))


@pytest.mark.parametrize(
    ("handling", "v4", "v6"), [("keep", "203.0.113.9", "2001:db8:1:2::3"), ("truncate", "203.0.113.0", "2001:db8:1::"), ("drop", "", "")]
)
def test_addresses(handling: IpHandling, v4: str, v6: str) -> None:
    assert (kept_address(handling, "203.0.113.9"), kept_address(handling, "2001:db8:1:2::3")) == (v4, v6)


@pytest.mark.parametrize("name", ['"ip"', '"\\u0069p"', '"$ip"'])
@pytest.mark.parametrize(("handling", "left"), [("truncate", {"203.0.113.0"}), ("drop", set())])
def test_addresses_in_an_event(name: str, handling: IpHandling, left: set[str]) -> None:
    context = b'{"page":{"ip":"kept"},%s:"203.0.113.9"}' % name.encode()
    event = ClientEvent(context=msgspec.Raw(context), properties=msgspec.Raw(b'{"$ip":"203.0.113.9","ip":"mine"}'))
    hide_addresses(handling, event)
    found = json.loads(bytes(event.context))
    assert found.pop("page") == {"ip": "kept"}
    assert set(found.values()) == left
    assert json.loads(bytes(event.properties)) == {"ip": "mine"} | ({"$ip": "203.0.113.0"} if left else {})
    payload = json.loads(hidden_in_payload(handling, b'{"type":"x","context":%s}' % context))
    assert payload == {"type": "x", "context": {"page": {"ip": "kept"}} | ({json.loads(name): "203.0.113.0"} if left else {})}


@given(st.binary(max_size=60), st.sampled_from(["truncate", "drop"]))
def test_any_payload_can_be_looked_at(payload: bytes, handling: IpHandling) -> None:
    assert isinstance(hidden_in_payload(handling, payload), bytes)


@pytest.mark.parametrize(
    ("agent", "bot"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        ("UptimeRobot/2.0", True),
        (CHROME, False),
        ("analytics-python/2.4.0", False),
        ("python-requests/2.32", False),
        ("node", False),
        ("", False),
    ],
)
def test_bots(agent: str, bot: bool) -> None:
    field = Signals().field(agent)
    assert (field is not None and field.bot) is bot


def test_nothing_is_said_of_most() -> None:
    assert Signals().field(CHROME) is None
    said = Signals(do_not_track=True).field(CHROME)
    assert said is not None
    assert (said.do_not_track, said.global_privacy_control, said.bot) == (True, False, False)


def test_keys_are_added_rotated_and_revoked() -> None:
    old, new, newest = hash_of("old"), hash_of("new"), hash_of("newest")
    rotated = SOURCE.with_key(old).rotated(new, 100).rotated(newest, 200)
    assert (rotated.key_hashes, dict(rotated.expiries)) == (frozenset({old, new, newest}), {old: 100, new: 200})
    assert rotated.without_key(fingerprint_of(old)) == SOURCE.with_key(new).rotated(newest, 200)
    with pytest.raises(NotFound):
        rotated.without_key("")
