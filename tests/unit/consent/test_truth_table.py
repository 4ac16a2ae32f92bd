"""Segment's truth table of consent × integrations × mapped destinations: what consent grants, and whom the router's filter lets through."""

from collections.abc import Mapping
from typing import Any

import pytest

from cdi_consent.domain.decisions import ANONYMOUS_ID, Subject
from cdi_consent.domain.evaluation import Item, evaluate
from cdi_consent.domain.policy import DefaultPolicy
from cdi_consent.domain.purposes import Purpose, snapshot
from cdi_router.application.needs import needing
from cdi_router.domain.destination import Destination, Webhook
from cdi_router.domain.filter import Filter
from cdi_testing import builders
from cdi_testing.builders import WORKSPACE

BROWSER: Subject = (WORKSPACE, ANONYMOUS_ID, "browser")
DESTINATIONS = ("facebook", "google-ads", "amplitude", "unmapped")

NOTHING: Mapping[str, list[str]] = {"ad": [], "analytics": []}
AD: Mapping[str, list[str]] = {"ad": ["facebook", "google-ads"], "analytics": ["amplitude"]}
ONLY_AD: Mapping[str, list[str]] = {"ad": ["facebook", "google-ads"], "analytics": []}
BOTH: Mapping[str, list[str]] = {"ad": ["facebook", "google-ads"], "analytics": ["facebook", "amplitude"]}
OFF = {"facebook": True, "amplitude": False}
ABSENT = None
Preferences = dict[str, bool] | None


def reached(policy: DefaultPolicy, mapped: Mapping[str, list[str]], preferences: Preferences, integrations: Any) -> set[str]:
    """Where an event goes, by the purposes that name the destinations."""
    purposes = [Purpose(WORKSPACE, name, destinations=tuple(names), default_policy=policy) for name, names in mapped.items()]
    item = Item(WORKSPACE, (BROWSER,), tuple((preferences or {}).items()), answered=preferences is not None)
    (outcome,) = evaluate([item], snapshot(purposes), {}, {BROWSER}, 1).outcomes
    event = builders.track(integrations=integrations)
    event.consent.granted_purposes.extend(outcome.granted_purposes)
    found = set()
    for name in DESTINATIONS:
        needed = [purpose.name for purpose in purposes if name in purpose.destinations]
        if Filter(needing(Destination(WORKSPACE, name, Webhook("http://x/")), needed)).reason(event) is None:
            found.add(name)
    return found


# Source: Segment's documentation, "Consent in Segment Connections", as reference/consent.md has it.
ROWS: list[tuple[Mapping[str, list[str]], Preferences, Any, set[str]]] = [
    (AD, ABSENT, None, {"facebook", "google-ads", "amplitude", "unmapped"}),
    (AD, {}, None, {"unmapped"}),
    (AD, ABSENT, OFF, {"facebook", "google-ads", "unmapped"}),
    (AD, {}, OFF, {"unmapped"}),
    (NOTHING, {"ad": True, "analytics": False}, None, {"facebook", "google-ads", "amplitude", "unmapped"}),
    (NOTHING, {"ad": True, "analytics": False}, OFF, {"facebook", "google-ads", "unmapped"}),
    (ONLY_AD, {"ad": True, "analytics": False}, None, {"facebook", "google-ads", "amplitude", "unmapped"}),
    (AD, {"ad": True, "analytics": False}, OFF, {"facebook", "google-ads", "unmapped"}),
    (AD, {"ad": True, "analytics": False}, {"facebook": False, "amplitude": False}, {"google-ads", "unmapped"}),
    (BOTH, {"ad": True, "analytics": False}, OFF, {"google-ads", "unmapped"}),
    (BOTH, {"ad": True, "analytics": True}, OFF, {"facebook", "google-ads", "unmapped"}),
    (BOTH, {"ad": False, "analytics": True}, OFF, {"unmapped"}),
    # A category that is not configured says nothing, and one that is configured and not answered is denied.
    (AD, {"other": True}, None, {"unmapped"}),
    (AD, {"ad": True}, None, {"facebook", "google-ads", "unmapped"}),
]


@pytest.mark.parametrize(("mapped", "preferences", "integrations", "expected"), ROWS)
def test_segments_truth_table(mapped: Mapping[str, list[str]], preferences: Preferences, integrations: Any, expected: set[str]) -> None:
    assert reached(DefaultPolicy.SEGMENT, mapped, preferences, integrations) == expected


@pytest.mark.parametrize(("mapped", "preferences", "integrations", "expected"), ROWS)
def test_under_require_only_silence_differs(
    mapped: Mapping[str, list[str]], preferences: Preferences, integrations: Any, expected: set[str]
) -> None:
    silent = preferences is None
    assert reached(DefaultPolicy.REQUIRE, mapped, preferences, integrations) == ({"unmapped"} if silent else expected)


def test_under_allow_only_a_denial_stops() -> None:
    assert reached(DefaultPolicy.ALLOW, BOTH, {"ad": False}, None) == {"amplitude", "unmapped"}
    assert reached(DefaultPolicy.ALLOW, BOTH, {}, None) == set(DESTINATIONS)
