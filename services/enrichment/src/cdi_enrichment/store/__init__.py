"""The service's Postgres: claims of the dedupe window, progress with outcome counts, tracking plans."""

from cdi_enrichment.store.claims import ClaimStore
from cdi_enrichment.store.plans import PlanStore
from cdi_enrichment.store.progress import ProgressStore

__all__ = ["ClaimStore", "PlanStore", "ProgressStore"]
