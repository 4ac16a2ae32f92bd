"""The enrichers, by the name under which settings switch them: a field of ``Enrichments``. A new one is a file here and a line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

from cdi.event.v1 import event_pb2
from cdi_enrichment.domain import wire
from cdi_enrichment.enrichers.base import Enricher, ReferenceFiles, Subject
from cdi_enrichment.enrichers.campaign import CampaignEnricher
from cdi_enrichment.enrichers.email_quality import EmailQualityEnricher
from cdi_enrichment.enrichers.geo import GeoEnricher
from cdi_enrichment.enrichers.referrer import ReferrerEnricher
from cdi_enrichment.enrichers.user_agent import UserAgentEnricher

__all__ = ["REGISTRY", "Enricher", "Enrichers", "ReferenceFiles", "Subject"]

REGISTRY: Final[Mapping[str, Callable[[ReferenceFiles], Enricher[Any]]]] = {
    "user_agent": UserAgentEnricher,
    "campaign": CampaignEnricher,
    "referrer": ReferrerEnricher,
    "geo": GeoEnricher,
    "email_quality": EmailQualityEnricher,
}

_enrichments = wire.field(event_pb2.Event, "enrichments")


class Enrichers:
    """Those that are switched on, each with a memory of its answers."""

    def __init__(self, files: ReferenceFiles, *, disabled: Collection[str] = ()) -> None:
        made = {name: make(files) for name, make in REGISTRY.items() if name not in disabled}
        self._steps = [_step(name, enricher) for name, enricher in made.items()]
        geo = made.get("geo")
        self._region = lru_cache(geo.remembered)(geo.region) if isinstance(geo, GeoEnricher) else None

    def __call__(self, subjects: Sequence[Subject]) -> list[bytes]:
        """The field ``enrichments`` of each event; empty when nobody found anything."""
        found = [step(subjects) for step in self._steps]
        contents = map(b"".join, zip(*found, strict=True)) if found else repeat(b"", len(subjects))
        return [_enrichments(content) if content else b"" for content in contents]

    def regions(self, subjects: Sequence[Subject]) -> list[str]:
        """Where each person is: "DE", or "US-CA" where the file of places tells; empty if unknown, or without the enricher ``geo``."""
        if (region := self._region) is None:
            return [""] * len(subjects)
        return [region(subject.client_ip) if subject.client_ip else "" for subject in subjects]


def _step(name: str, enricher: Enricher[Any]) -> Callable[[Sequence[Subject]], list[bytes]]:
    """What one enricher finds for each event. One after the other goes over the batch: less to hold in the processor's caches."""
    write = wire.field(event_pb2.Enrichments, name)

    @lru_cache(maxsize=enricher.remembered)
    def find(key: Hashable) -> bytes:
        part = enricher.find(key)
        return b"" if part is None else write(part.SerializeToString())

    key_of = enricher.key

    def step(subjects: Sequence[Subject]) -> list[bytes]:
        return [b"" if (key := key_of(subject)) is None else find(key) for subject in subjects]

    return step
