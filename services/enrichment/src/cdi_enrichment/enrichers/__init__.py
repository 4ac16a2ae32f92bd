"""The enrichers, by the name under which settings switch them: a field of ``Enrichments``. A new one is a file here and a line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from functools import lru_cache
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
        self._steps = [_step(name, make(files)) for name, make in REGISTRY.items() if name not in disabled]

    def __call__(self, subject: Subject) -> bytes:
        """The field ``enrichments`` of the event; empty when nobody found anything."""
        parts = [find(key) for key_of, find in self._steps if (key := key_of(subject)) is not None]
        content = b"".join(parts) if parts else b""
        return _enrichments(content) if content else b""


def _step(name: str, enricher: Enricher[Any]) -> tuple[Callable[[Subject], Hashable], Callable[[Any], bytes]]:
    write = wire.field(event_pb2.Enrichments, name)

    @lru_cache(maxsize=enricher.remembered)
    def find(key: Hashable) -> bytes:
        part = enricher.find(key)
        return b"" if part is None else write(part.SerializeToString())

    return enricher.key, find
