"""The families that the door takes, and all their paths."""

from __future__ import annotations

from typing import Final

from cdi_collector.http import cloudevents, jitsu, posthog, rudderstack, segment, snowplow, webhooks
from cdi_collector.http.base import RouteTable
from cdi_collector.settings import Settings

ROUTES: Final = RouteTable(
    exact={**segment.ROUTES, **rudderstack.ROUTES, **jitsu.ROUTES, **posthog.ROUTES, **cloudevents.ROUTES},
    # Held against a path from the top; what is more general stands below.
    patterns={**segment.PATTERNS, **posthog.PATTERNS, **webhooks.PATTERNS},
)
"""Paths that every installation has."""


def installed(settings: Settings) -> RouteTable:
    """``ROUTES``, and the paths of families that the operator sets up. Raises ``ValueError`` if two of them claim one path."""
    return ROUTES.extended(snowplow.routes(settings))
