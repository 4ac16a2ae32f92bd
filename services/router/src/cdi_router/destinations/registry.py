"""Which kinds of destinations there are."""

from __future__ import annotations

from cdi_router.destinations.base import Kind
from cdi_router.destinations.webhook import WebhookKind
from cdi_router.destinations.webhook_deletion import webhook_deleting
from cdi_router.ports import Deleting

KINDS: dict[str, Kind] = {"webhook": WebhookKind()}
"""By the name of the field in ``Destination.kind``."""

DELETING: dict[str, Deleting] = {"webhook": webhook_deleting}
"""How each kind tells its destination to delete people."""
