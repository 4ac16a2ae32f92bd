"""Which events a destination gets: types, names, the integrations object, and consent by Segment's truth table."""

import json
from typing import Any

import pytest

from cdi.event.v1 import event_pb2
from cdi_router.domain.destination import Destination, Webhook
from cdi_router.domain.filter import CONSENT_DENIED, FILTERED, Filter, wanted
from cdi_testing import builders


def destination(name: str = "ads", **fields: Any) -> Destination:
    return Destination("acme", name, Webhook("http://localhost/"), **fields)


def granted(event: event_pb2.Event, *purposes: str) -> event_pb2.Event:
    event.consent.granted_purposes.extend(sorted(purposes))
    return event


def test_without_rules_everything_passes() -> None:
    sieve = Filter(destination())
    for event in (builders.track(), builders.page(), builders.identify(), builders.alias(), builders.group()):
        assert sieve.reason(event) is None


def test_types_and_names() -> None:
    types = frozenset({event_pb2.EVENT_TYPE_TRACK, event_pb2.EVENT_TYPE_IDENTIFY})
    sieve = Filter(destination(event_types=types, event_names=frozenset({"Order Completed"})))
    assert sieve.reason(builders.track("Order Completed")) is None
    assert sieve.filter(builders.track("order completed")) == "event_names"
    assert sieve.filter(builders.page("Order Completed")) == "event_types"
    assert sieve.reason(builders.page()) == FILTERED
    # Names are of track events only.
    assert sieve.reason(builders.identify()) is None


@pytest.mark.parametrize(
    ("integrations", "goes"),
    [
        ({}, True),
        ({"All": True}, True),
        ({"All": False}, False),
        ({"all": False}, False),
        ({"All": False, "Ads": True}, True),
        ({"All": False, "ADS": {"clientId": "1"}}, True),
        ({"All": True, "ads": False}, False),
        ({"ads": False}, False),
        ({"ads": None}, False),
        ({"other": False}, True),
        ({"other": True}, True),
        ({"All": False, "other": True}, False),
    ],
)
def test_integrations(integrations: dict[str, Any], goes: bool) -> None:
    assert wanted(json.dumps(integrations).encode(), "ads") is goes
    reason = Filter(destination()).filter(builders.track(integrations=integrations))
    assert reason == (None if goes else "integrations")


@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff", b'"All"', b"[" * 100_000])
def test_integrations_that_are_no_object_say_nothing(text: bytes) -> None:
    assert wanted(text, "ads")


OFF = {"facebook": True, "amplitude": False}
AD = {"facebook": ("ad",), "google-ads": ("ad",), "amplitude": ("analytics",), "unmapped": ()}
BOTH = AD | {"facebook": ("ad", "analytics")}
NOTHING_MAPPED: dict[str, tuple[str, ...]] = dict.fromkeys(AD, ())


# Source: reference/consent.md; the rows without a consent object under the policy `require`, where no answer grants nothing.
@pytest.mark.parametrize(
    ("mapped", "answers", "integrations", "result"),
    [
        (AD, set(), None, {"unmapped"}),
        (AD, set(), OFF, {"unmapped"}),
        (NOTHING_MAPPED, {"ad"}, None, set(AD)),
        (NOTHING_MAPPED, {"ad"}, OFF, set(AD) - {"amplitude"}),
        (AD, {"ad"}, None, {"facebook", "google-ads", "unmapped"}),
        (AD, {"ad"}, OFF, {"facebook", "google-ads", "unmapped"}),
        (AD, {"ad"}, {"facebook": False, "amplitude": False}, {"google-ads", "unmapped"}),
        (BOTH, {"ad"}, OFF, {"google-ads", "unmapped"}),
        (BOTH, {"ad", "analytics"}, OFF, {"facebook", "google-ads", "unmapped"}),
        (BOTH, {"analytics"}, OFF, {"unmapped"}),
    ],
)
def test_truth_table(mapped: dict[str, tuple[str, ...]], answers: set[str], integrations: Any, result: set[str]) -> None:
    event = granted(builders.track(integrations=integrations), *answers)
    reached = {name for name, purposes in mapped.items() if Filter(destination(name, purposes=purposes)).reason(event) is None}
    assert reached == result


def test_denied_by_the_event_itself() -> None:
    sieve = Filter(destination(purposes=("advertising", "analytics")))
    assert sieve.reason(granted(builders.track(), "analytics")) == CONSENT_DENIED
    assert sieve.missing(["analytics"]) == ("advertising",)
    assert sieve.reason(granted(builders.track(), "analytics", "advertising", "other")) is None


def test_other_workspaces_do_not_exist() -> None:
    assert not Filter(destination()).of_workspace(builders.track(workspace_id="other"))
