"""The enrichers, by the name under which settings switch them. A new one is a file here and a line in ``REGISTRY``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from cdi_enrichment.enrichers.base import Enricher, ReferenceFiles, Subject
from cdi_enrichment.enrichers.campaign import CampaignEnricher
from cdi_enrichment.enrichers.email_quality import EmailQualityEnricher
from cdi_enrichment.enrichers.geo import GeoEnricher
from cdi_enrichment.enrichers.referrer import ReferrerEnricher
from cdi_enrichment.enrichers.user_agent import UserAgentEnricher

__all__ = ["REGISTRY", "Enricher", "ReferenceFiles", "Subject", "make_enrichers"]

REGISTRY: Final[Mapping[str, Callable[[ReferenceFiles], Enricher]]] = {
    "user_agent": UserAgentEnricher,
    "campaign": CampaignEnricher,
    "referrer": ReferrerEnricher,
    "geo": GeoEnricher,
    "email_quality": EmailQualityEnricher,
}


def make_enrichers(files: ReferenceFiles, *, disabled: Collection[str] = ()) -> Sequence[Enricher]:
    """The enrichers that are switched on, in the order of the registry."""
    return [make(files) for name, make in REGISTRY.items() if name not in disabled]
