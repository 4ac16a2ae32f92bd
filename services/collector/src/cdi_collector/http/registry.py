"""The families that the door takes, and all their paths."""

from __future__ import annotations

from typing import Final

from cdi_collector.http import cloudevents, jitsu, posthog, rudderstack, segment, webhooks
from cdi_collector.http.base import RouteTable

ROUTES: Final = RouteTable(
    exact={**segment.ROUTES, **rudderstack.ROUTES, **jitsu.ROUTES, **posthog.ROUTES, **cloudevents.ROUTES},
    # Held against a path from the top; what is more general stands below.
    patterns={**segment.PATTERNS, **posthog.PATTERNS, **webhooks.PATTERNS},
)
