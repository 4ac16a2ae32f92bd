"""All kinds of documents."""

from __future__ import annotations

from typing import Final

from cdi_cli.documents.collector import SourceDocument
from cdi_cli.documents.consent import ConsentPolicyDocument, PurposeDocument
from cdi_cli.documents.document import Document
from cdi_cli.documents.enrichment import TrackingPlanDocument
from cdi_cli.documents.identity import ComputedTraitDocument, IdentityRulesDocument
from cdi_cli.documents.router import DestinationDocument
from cdi_cli.documents.warehouse import CleanRoomDocument, WarehouseDocument

KINDS: Final[dict[str, type[Document]]] = {
    "ConsentPolicy": ConsentPolicyDocument,
    "Purpose": PurposeDocument,
    "TrackingPlan": TrackingPlanDocument,
    "Warehouse": WarehouseDocument,
    "IdentityRules": IdentityRulesDocument,
    "ComputedTrait": ComputedTraitDocument,
    "CleanRoom": CleanRoomDocument,
    "Destination": DestinationDocument,
    "Source": SourceDocument,
}
"""In the order in which they are applied: what an event needs stands before the source that lets it in."""

APPLY_ORDER: Final = {kind: place for place, kind in enumerate(KINDS)}
"""Kind → its place among the kinds of one `cdi apply`."""
