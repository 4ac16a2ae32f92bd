"""The registry of metric names is a contract with dashboards and alerts."""

import re

import pytest

from cdi_runtime.telemetry import instruments

UNITS = {"s", "By", "{event}", "{message}", "{partition}", "{request}", "{row}"}


@pytest.mark.parametrize("described", instruments.REGISTRY.values(), ids=lambda described: described.name)
def test_every_metric_follows_the_rules(described: instruments.Described) -> None:
    assert re.fullmatch(r"cdi_[a-z]+(_[a-z]+)*", described.name)
    assert not described.name.endswith(("_total", "_seconds", "_bytes")), "Prometheus adds the suffix"
    assert described.unit in UNITS
    assert described.description.endswith(".")
    assert described.labels <= instruments.LABELS
    assert bool(described.buckets) == (described.kind == "histogram")
    assert list(described.buckets) == sorted(described.buckets)


def test_a_forgotten_or_invented_label_is_refused() -> None:
    with pytest.raises(ValueError, match="cdi_events_rejected"):
        instruments.EVENTS_REJECTED.add(1, stage="enrich")
    with pytest.raises(ValueError, match="cdi_events_accepted"):
        instruments.EVENTS_ACCEPTED.add(1, stage="enrich", user="u1")


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        instruments.Counter(instruments.EVENTS_ACCEPTED.described)


def test_counting_before_the_start_is_harmless() -> None:
    instruments.EVENTS_ACCEPTED.add(1, stage="enrich")
