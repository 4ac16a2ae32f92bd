"""Which kinds of destinations there are."""

from __future__ import annotations

from cdi_router.destinations.base import Kind
from cdi_router.destinations.webhook import WebhookKind

KINDS: dict[str, Kind] = {"webhook": WebhookKind()}
"""By the name of the field in ``Destination.kind``."""
